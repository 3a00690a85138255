"""Cohorts on disk: the nnU-Net raw layout (v2), read and written.

A cohort is a folder with ``dataset.json``, ``imagesTr/CASE_0000.nii.gz`` (one file a channel) and
``labelsTr/CASE.nii.gz``. ``dataset.json`` holds ``channel_names``, ``labels``, ``numTraining``, ``file_ending`` and
optionally ``dataset`` (v2: the files of each case, in place of the folder scan). Images to be segmented lie in
``imagesTs``, without labels; `check` and `npcrepro.runs.predict.predict` take them. Our own optional fields:

* ``name``, ``reference``, ``licence``, ``publishable`` (false by default);
* ``spacing_known`` (true by default): whether the spacing in the headers is that of the scanner;
* ``groups``: case to patient, where a patient has more than one case (by default a case is a patient);
* ``wrong_labels``: cases that are never used;
* ``suspect_labels``: cases that are scored and reported apart, and left out of training;
* ``not_contoured``: case to the structures that nobody drew in it, which is not the same as their not being there;
* ``missing_series``: what becomes of a case without one of the channels: ``"leave-out"`` (by default), or ``"zero"``,
  an image of zeros in its place. `check` names it in either case. A case without any channel is an error.

Arrays are ``(z, y, x)``, images ``(C, z, y, x)``, spacing is ``spacing_mm: (z, y, x)``. A 2-D image is a volume of one
slice. A structure may have several codes (``"Brain": [1, 2]``), as structures may overlap. ``geometry`` keeps origin
and direction as SimpleITK gives them: in (x, y, z) order, LPS, millimetres.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_new, write_json, writing_folder
from npcrepro.cohorts.cohort import Case, CaseArrays, Cohort
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import to_itk, to_mask, write_image
from npcrepro.cohorts.listing import cohort_folder, images_to_segment, is_file_name, scan
from npcrepro.cohorts.structures import Coding, Structures, as_codes

WORDS = ("spacing_known", "licence", "reference", "publishable")


def read_cohort(root: str | Path) -> Cohort:
    """Read ``dataset.json`` and list the files of a cohort; images are not opened (see `check` and `prepare`).

    ``root`` is a folder, or the name of a sample cohort: ``sample-ct``, ``sample-t2`` or ``sample-sarcoma``.

    Raises InputError for a missing folder or ``dataset.json``, bad JSON, a missing field, a missing label, a case that
    is there twice, for a cohort without cases, and for images without labels (``imagesTs`` alone). Cases with wrong
    labels may lack files; for a case that lacks a channel see ``missing_series`` above.
    """
    root = cohort_folder(root)
    if images_to_segment(root):
        cause = "training and scores need imagesTr and labelsTr; `npcrepro predict` segments imagesTs"
        raise InputError(f"{root}: images without labels (imagesTs alone): {cause}")
    return _read(root)


def _read(root: Path) -> Cohort:
    listing = scan(root)
    for defect in listing.defects:
        if defect.severity == "error":
            # The cohort's folder is what a user typed; without it "dataset.json: missing" says little.
            raise Refused(replace(defect, file=str(root / defect.file)))
    return Cohort(
        name=listing.header.get("name") or root.resolve().name,
        channels=listing.channels,
        structures=listing.structures or {},
        cases=tuple(listing.cases),
        excluded=listing.excluded,
        root=root,
        **{key: listing.header[key] for key in WORDS if key in listing.header},
    )


def write_cohort(
    root: str | Path,
    cases: Iterable[CaseArrays],
    *,
    name: str,
    channels: Sequence[str],
    structures: Mapping[str, int | Sequence[int]] | Sequence[str],
    reference: str = "",
    licence: str = "",
    publishable: bool = False,
    spacing_known: bool = True,
) -> Cohort:
    """Write a cohort in the nnU-Net raw layout and return it as read back.

    ``cases`` may be a generator: one case is in memory at a time. ``structures`` leaves the background out: names with
    the codes of the labels, or names alone where the labels are masks (see `Coding`). Without structures there are no
    labels: the images are to be segmented and lie in ``imagesTs``. The folder appears when it is complete.

    Raises InputError where ``root`` holds something already, for arrays that do not fit together, a case name given
    twice, an unknown label value, and no cases.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> case = CaseArrays("A", "A", np.zeros((1, 2, 4, 4)), np.zeros((2, 4, 4), int), (3.0, 1.0, 1.0))
        >>> with TemporaryDirectory() as folder:
        ...     write_cohort(f"{folder}/mine", [case], name="mine", channels=["CT"], structures={"GTVp": 1}).patients
        ('A',)
    """
    root = Path(root)
    check_new(root)
    if not is_file_name(name):
        raise InputError(f"{root}: {name!r} cannot name a cohort: it begins with a dot or has a slash or colon in it")
    written: list[Case] = []
    coding: Coding | None = None
    codes: Structures = {}
    if isinstance(structures, Mapping):
        codes = {name: as_codes(value) for name, value in structures.items()}
    else:
        coding = Coding(structures)
    with writing_folder(root) as folder:
        for part in ("imagesTr", "labelsTr") if structures else ("imagesTs",):
            (folder / part).mkdir()
        for case in cases:
            if case.name in {each.name for each in written}:
                raise InputError(f"case {case.name} is given twice: two sources carry the same case name")
            if coding is not None and structures:
                case = replace(case, label=_encoded(coding, case))
                codes = coding.structures
            _write_case(folder, case, tuple(channels), codes)
            written.append(Case(case.name, case.patient, suspect=case.suspect, not_contoured=case.not_contoured))
        header: dict[str, Any] = {"name": name, "reference": reference, "licence": licence, "publishable": publishable}
        header |= {"file_ending": ".nii.gz", "numTraining": len(written) if structures else 0}
        header["spacing_known"] = spacing_known
        header["channel_names"] = {str(i): channel for i, channel in enumerate(channels)}
        if structures:
            header["labels"] = {"background": 0} | {key: list(c) if len(c) > 1 else c[0] for key, c in codes.items()}
        regions = any(len(c) > 1 for c in codes.values())
        optional = {
            # nnU-Net asks for it with regions: what a voxel becomes when it is put together again.
            "regions_class_order": [c[0] for c in codes.values()] if regions else [],
            "groups": {case.name: case.patient for case in written if case.patient != case.name},
            "suspect_labels": [case.name for case in written if case.suspect],
            "not_contoured": {case.name: list(case.not_contoured) for case in written if case.not_contoured},
        }
        header |= {key: value for key, value in optional.items() if value}
        write_json(folder / "dataset.json", header)
        try:
            _read(folder)
        except Refused as problem:
            raise InputError(str(problem).replace(str(folder), str(root))) from None
    return _read(root)


def _encoded(coding: Coding, case: CaseArrays) -> np.ndarray:
    if not isinstance(case.label, Mapping):
        raise InputError(f"case {case.name}: a label image without codes: give masks, or a code for each structure")
    try:
        return coding.encode(case.label)
    except InputError as problem:
        raise InputError(f"case {case.name}: {problem}") from None


def _write_case(folder: Path, case: CaseArrays, channels: tuple[str, ...], structures: Structures) -> None:
    image = np.asarray(case.image)
    if not is_file_name(case.name):
        raise InputError(f"case name {case.name!r} cannot be part of a file name: a path was given as case name")
    if image.ndim != 4 or len(image) != len(channels):
        cause = "images are stacked as (C, z, y, x)"
        raise InputError(f"case {case.name}: image of shape {image.shape} for {len(channels)} channels: {cause}")
    label = np.asarray(case.label) if structures else np.zeros(image.shape[1:], np.uint8)
    if label.shape != image.shape[1:]:
        cause = "the label was drawn on another grid"
        raise InputError(f"case {case.name}: label of shape {label.shape} for an image of {image.shape[1:]}: {cause}")
    if len(case.spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in case.spacing_mm):
        raise InputError(f"case {case.name}: spacing_mm {case.spacing_mm} is not three positive numbers (z, y, x)")
    mask, defects = to_mask(label, structures, case.name)
    if mask is None:
        raise Refused(defects[0], case.name)

    def write(array: np.ndarray, path: Path) -> None:
        write_image(to_itk(array, case.spacing_mm, case.geometry), path)

    for number, channel in enumerate(image):
        write(channel, folder / ("imagesTr" if structures else "imagesTs") / f"{case.name}_{number:04d}.nii.gz")
    if structures:
        write(mask, folder / "labelsTr" / f"{case.name}.nii.gz")
