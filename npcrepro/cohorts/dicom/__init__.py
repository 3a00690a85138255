"""DICOM in and out: MRI sequences and CT with RTSTRUCTs become a cohort, a prediction becomes an RTSTRUCT."""

from npcrepro.cohorts.dicom.export import export_rtstruct, parse_structures, structures_of
from npcrepro.cohorts.dicom.find import Series, find_series
from npcrepro.cohorts.dicom.importing import import_dicom
from npcrepro.cohorts.dicom.series import Grid, Slice, read_grid, read_series
from npcrepro.cohorts.dicom.structures import Structure, StructureSet, rasterise, read_structures

__all__ = ["Grid", "Series", "Slice", "Structure", "StructureSet", "export_rtstruct", "find_series", "import_dicom"]
__all__ += ["parse_structures", "rasterise", "read_grid", "read_series", "read_structures", "structures_of"]
