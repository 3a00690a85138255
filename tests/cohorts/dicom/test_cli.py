import pytest
from dicom_cases import write_patient
from typer.testing import CliRunner

from npcrepro.cli import commands
from npcrepro.cohorts.dicom import rasterise, read_grid, read_structures
from npcrepro.cohorts.images import read_image


def call(*arguments):
    done = CliRunner().invoke(commands.app, ["data", *map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.output.splitlines()


@pytest.fixture
def cohort(tmp_path):
    write_patient(tmp_path / "dicom")
    call("import", tmp_path / "dicom", tmp_path / "cohort")
    return tmp_path / "cohort"


@pytest.mark.parametrize(("options", "name"), [([], "GTVp"), (["--structures", "A=1,2"], "A")])
def test_export_names_the_structures(tmp_path, cohort, options, name):
    label, series = cohort / "labelsTr" / "CASE_000.nii.gz", tmp_path / "dicom" / "images"
    said = call("export-rtstruct", label, series, tmp_path / "out.dcm", *options)
    assert str(tmp_path / "out.dcm") in said[0]
    (structure,) = read_structures(tmp_path / "out.dcm").structures
    assert structure.name == name
    assert (rasterise(structure.contours, read_grid(series)) == (read_image(label)[0] == 1)).all()
