"""A trained network in use: trained on all patients of a cohort, applied to the images of another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from safetensors import SafetensorError, safe_open

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_new, sha256_of_file, write_json, writing_folder
from npcrepro.base.progress import Report
from npcrepro.base.wording import in_words
from npcrepro.cohorts.defects import Refused
from npcrepro.cohorts.images import IMAGE_ENDINGS, axes_of, from_itk, read_image, to_itk, write_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.listing import Listing, cohort_folder, scan
from npcrepro.cohorts.prepared import PreparedCohort, prepare
from npcrepro.cohorts.structures import Structures, smallest_type
from npcrepro.protocol.method import Method, Paper
from npcrepro.protocol.settings import Settings
from npcrepro.runs.queue import run_paper
from npcrepro.runs.records import Record, quantised
from npcrepro.runs.run import load_network
from npcrepro.runs.validated import keep_largest, read_choices

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

FOLDERS = ("imagesTr", "imagesTs")
PACKED = "packed"  # the entry of provenance.json that published weights have, see `npcrepro.runs.weights`
Grid = tuple[tuple[float, float, float], dict]  # spacing in mm and geometry, as read_image gives them


def train_on_all(
    paper: Paper, settings: Settings, report: Report | None = None, devices: int = 1, deterministic: bool = False
) -> list[Record]:
    """Train methods on all patients of a cohort, for use elsewhere: nobody is tested.

    The paper's share of validation patients does not train; it decides which weights are kept. Of the settings, the
    folds play no part. Arguments and errors are those of :func:`npcrepro.runs.queue.run_paper`.

    Returns:
        One record for each method and seed.
    """
    kept = {key: value for key, value in paper.split.items() if key in ("validation", "seed")}
    paper = replace(paper, split={"kind": "all", **kept})
    return run_paper(paper, settings, report=report, devices=devices, deterministic=deterministic)


def predict(run: Path | str, cohort: Path | str, out: Path | str, device: str = "auto", report: Report = print) -> int:
    """Segment every case of a folder with the network of a finished run.

    Where the run takes in maps of another, the network of that other goes over the cases first. Where its patients for
    validation gained by the largest piece of a structure, that alone is kept. Images with other axes
    than most of those that it was trained on are turned for the network, and the labels are turned back.

    Args:
        run: folder of the run, or of published weights (:func:`npcrepro.runs.weights.weights_of`).
        cohort: folder with ``imagesTs`` or ``imagesTr``, or both. Labels are not looked at and may be missing, and so
            may ``dataset.json`` if the run has one channel.
        out: folder to write, new or empty: ``CASE.nii.gz`` on the grid of the case, and a ``dataset.json`` with the
            codes. A structure that the cohort's own ``dataset.json`` names keeps the code it has there.
        device: auto, cpu or cuda.
        report: called with a line for each case.

    Returns:
        Number of cases.

    Raises:
        InputError: an unknown device, no finished run, one that diverged, damaged weights, a folder without images,
            channels that the network needs and the cohort lacks, images that cannot be read, and an ``out`` that is not
            empty.
    """
    from npcrepro.models.outputs import decide
    from npcrepro.runs.devices import make_fabric

    record, root, out = read_run(Path(run)), cohort_folder(cohort), Path(out).resolve()
    check_new(out)
    fabric = make_fabric(device)  # before images are read: a slip should not take minutes to tell
    method, listing = method_of(record), scan(root)
    codes = _codes(method.structures, listing.structures or {})
    with writing_folder(out) as folder, TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
        prepared, grids = _stage(root, listing, record, Path(work))
        values = np.array([0, *codes.values()])
        choices = read_choices(record.folder / "validated.json")
        for number, (case, probability) in enumerate(probabilities_of(record, prepared, Path(work), fabric), 1):
            decided = decide(probability[None], method.threshold)[0].numpy()
            label = values[keep_largest(decided, choices, method.structures)]
            about, turned = prepared.case(case), ""
            image = to_itk(label.astype(smallest_type(max(codes.values()))), about.spacing_mm, about.geometry)
            axes = axes_of(grids[case][1])
            if axes != axes_of(about.geometry):
                image = to_itk(from_itk(sitk.DICOMOrient(image, axes))[0], *grids[case])
                turned = ", axes turned for the network and back"
            write_image(image, folder / f"{case}.nii.gz")
            report(f"[{number}/{len(prepared.cases)}] {case}{turned}")
        header: dict[str, Any] = {
            "name": f"{prepared.name}-{method.name}",
            "reference": f"predicted by {method.full_name}, {record.folder.name}",
        }
        header |= {"licence": prepared.licence, "file_ending": ".nii.gz", "numTraining": len(prepared.cases)}
        header |= {"channel_names": {str(i): channel for i, channel in enumerate(method.channels)}}
        write_json(folder / "dataset.json", header | {"labels": {"background": 0, **codes}})
    return len(prepared.cases)


def read_run(folder: Path) -> Record:
    """The record of a finished run, or of published weights, whose network can be used.

    Raises:
        InputError: something else than the folder of a finished run, a run that diverged, or a damaged file.
    """
    for name in ("config.json", "model.safetensors", "provenance.json"):
        if not (folder / name).is_file():
            cause = "a run that is not finished, or a folder above it; `npcrepro train` and `npcrepro run` make runs"
            raise InputError(f"{folder} is not the folder of a finished run (no {name}): {cause}")
    record, weights = Record(folder.resolve()), folder / "model.safetensors"
    try:
        if not {"method", "profile"} <= set(record.config):
            raise ValueError("config.json names no method")
        with safe_open(weights, framework="numpy"):
            pass  # a file that is cut off cannot be opened
        wanted = record.provenance.get(PACKED, {}).get("sha256")
        if wanted and sha256_of_file(weights) != wanted:
            raise ValueError(f"{weights.name} has another checksum than provenance.json gives")
    except (ValueError, SafetensorError) as problem:
        raise InputError(f"{folder} holds a damaged file, cut off or changed ({problem}): copy it again") from None
    if record.provenance["status"] == "diverged":
        raise InputError(f"the training of {folder} diverged: its network predicts nothing of use")
    return record


def method_of(record: Record) -> Method:
    """The method as it was trained: with the channels and structures that stood in for those of the paper."""
    method, stands_in = record.method, record.provenance["substituted"]
    channels, structures = (
        tuple(stands_in.get(name, name) for name in names) for names in (method.channels, method.structures)
    )
    return replace(method, channels=channels, structures=structures)


def data_of(record: Record, prepared: PreparedCohort, **options: Any):
    """Cases of other patients as the network of a run sees them.

    The structures have the names that they had in training, so that all which depends on them is done as there: a
    method that cuts volumes about its own tumour does not cut them if another tumour stood in for it.

    Args:
        options: of the data, beside those of the method.
    """
    method, mine = record.method, method_of(record)
    # Beside other structures, nobody could tell which of them stood in.
    structures = {name: codes for name, codes in prepared.structures.items() if name in mine.structures}
    prepared, matrix = replace(prepared, structures=structures), record.config["profile"]["matrix"]
    return method.data.build(prepared, matrix, mine.channels, method.structures, **options)


def makers_of(record: Record) -> list[Record]:
    """The run whose maps this one takes in, on the same patients, or the runs on parts of them whose maps it averages;
    other runs that it uses serve training alone. Published weights have them in folders of their own.

    Raises:
        InputError: one of them cannot be used, see `read_run`.
    """
    if PACKED in record.provenance:
        return [read_run(record.folder / maker) for maker in record.provenance[PACKED]["makers"]]
    for use in (use for use in method_of(record).uses if use.maps):
        makers = record.used[use.method]
        return [read_run(maker.folder) for maker in (makers[1:] if use.averaged else makers[:1])]
    return []


def _codes(structures: Iterable[str], known: Structures) -> dict[str, int]:
    """A code for each structure: the one that is its own in ``known``, else one that nobody has."""
    taken = [code for codes in known.values() for code in codes]
    own = {name: [code for code in known.get(name, ()) if taken.count(code) == 1] for name in structures}
    free = iter(sorted(set(range(1, len(taken) + len(own) + 1)) - set(taken)))
    return {name: mine[0] if mine else next(free) for name, mine in own.items()}


def _stage(root: Path, listing: Listing, record: Record, work: Path) -> tuple[PreparedCohort, dict[str, Grid]]:
    """The images as a prepared cohort without any label, so that none can reach a prediction; and the grid of each case
    as it is stored: the axes of the prepared images are those that the network was trained on.
    """
    channels: dict[str, None] = {}
    structures: dict[str, None] = {}
    needed: Record | None = record
    while needed:
        channels |= dict.fromkeys(method_of(needed).channels)
        structures |= dict.fromkeys(method_of(needed).structures)
        needed = next(iter(makers_of(needed)), None)
    wanted = record.provenance.get("axes", "LPS")  # of DICOM, for runs that were made before they kept theirs
    entries: dict[str, dict] = {}
    grids: dict[str, Grid] = {}
    for case, paths in _images(root, listing, list(channels), record.method.full_name).items():
        array, spacing_mm, geometry = read_image(next(path for path in paths if path))
        grids[case] = spacing_mm, geometry
        turned = axes_of(geometry) != wanted
        empty = to_itk(np.zeros(array.shape, np.uint8), spacing_mm, geometry)
        label = work / f"{case}.nii.gz"
        write_image(sitk.DICOMOrient(empty, wanted) if turned else empty, label)
        files = []
        for number, path in enumerate(paths):
            if path and turned:
                image = sitk.DICOMOrient(to_itk(*read_image(path)), wanted)
                path = work / f"{case}_{number:04d}.nii.gz"
                write_image(image, path)
            # A sequence that the cohort lets become zeros is as empty as the label.
            files.append(str((path or label).resolve()))
        entries[case] = {"images": files, "label": str(label.resolve())}
    header = {"name": listing.header.get("name") or root.resolve().name, "file_ending": ".nii.gz", "dataset": entries}
    header |= {key: listing.header[key] for key in ("licence", "reference", "spacing_known") if key in listing.header}
    if not record.provenance.get("spacing_known", True):
        header["spacing_known"] = False  # it has learnt pixels: by their millimetres, images would come in another size
    header |= {"channel_names": {str(number): name for number, name in enumerate(channels)}}
    header |= {"labels": {"background": 0, **{name: number for number, name in enumerate(structures, 1)}}}
    write_json(work / "dataset.json", header)
    return prepare(read_cohort(work), work / "prepared"), grids


def _images(root: Path, listing: Listing, channels: list[str], network: str) -> dict[str, list[Path | None]]:
    """Images of each case, one for each channel that a network needs; None where it is to be zeros
    (``missing_series``)."""
    needs = f"{network} needs {in_words(channels)}"
    there = listing.channels
    if not there and len(channels) == 1 and root.is_dir() and not (root / "dataset.json").exists():
        there = tuple(channels)  # nobody says what it shows, and there is nothing to mix it up with
    if not there and root.is_dir() and not (root / "dataset.json").exists():
        cause = "without dataset.json, nobody says which of CASE_0000, CASE_0001, ... shows which"
        raise InputError(f"{root} names no channels, but {needs}: {cause}")
    if not there:
        defect = next(each for each in listing.defects if each.severity == "error")
        raise Refused(replace(defect, file=str(root / defect.file)))
    if not set(channels) <= set(there):
        raise InputError(
            f"{root} has {in_words(there)}, but {needs}: another kind of image, or another name under channel_names in "
            "dataset.json"
        )
    found = _files(root, listing)
    if not found:
        ending = listing.header.get("file_ending", ".nii.gz")
        others = (path for path in sorted(root.rglob("[!.]*")) if path.parent.name != "labelsTr")
        other = next((path.relative_to(root) for path in others if path.name.endswith(IMAGE_ENDINGS)), None)
        nearest = f"; {other} is there: if it is an image, rename or move it" if other else ""
        raise InputError(f"{root} has no images: neither imagesTr nor imagesTs holds a CASE_0000{ending}{nearest}")
    numbers = [there.index(name) for name in channels]
    zeros = listing.header.get("missing_series") == "zero"
    for case, files in found.items():
        lacking = [number for number in numbers if number not in files]
        if lacking and not (zeros and len(lacking) < len(numbers)):
            name = f"_{lacking[0]:04d} ({there[lacking[0]]})"
            cause = "the sequence was not exported for this case"
            raise InputError(f"{root}: case {case} has no image {name}, but {needs}: {cause}")
    return {case: [files.get(number) for number in numbers] for case, files in found.items()}


def _files(root: Path, listing: Listing) -> dict[str, dict[int, Path]]:
    """Images of each case by the number of their channel."""
    if "dataset" in listing.header:
        return {case.name: dict(enumerate(case.images)) for case in listing.cases}
    ending = re.escape(listing.header.get("file_ending", ".nii.gz"))
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(path for folder in FOLDERS for path in (root / folder).glob("[!.]*")):
        if match := re.fullmatch(rf"(.+)_(\d{{4}}){ending}", path.name):
            files = found.setdefault(match[1], {})
            if int(match[2]) in files:
                cause = "a case is there twice; rename or remove one"
                raise InputError(f"{root}: both imagesTr and imagesTs hold {path.name}: {cause}")
            files[int(match[2])] = path
    return dict(sorted(found.items()))


def probabilities_of(
    record: Record, prepared: PreparedCohort, work: Path, fabric: Fabric
) -> Iterator[tuple[str, Tensor]]:  # fmt: skip
    """Each case and the probability ``(S, z, y, x)`` of its structures."""
    method, profile, options = method_of(record), record.config["profile"], dict[str, Any]()
    for maker in makers_of(record):
        folder = work / "maps" / maker.config["method"]["name"] / maker.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        maps = options.setdefault("maps", {})
        for case, probability in probabilities_of(maker, prepared, work, fabric):
            maps.setdefault(case, []).append(folder / f"{case}.npz")
            np.savez_compressed(maps[case][-1], probability=quantised(probability))
    network = fabric.setup_module(load_network(record)).eval()
    data = data_of(record, prepared, **options)
    about = {"activation": method.activation, "batch_size": profile["batch_size"], "device": fabric.device}
    for case in prepared.case_names:
        yield case, data.predict(network, case, **about)
