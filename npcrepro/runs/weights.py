"""Published weights: finished runs without patients' images, small enough to come with the package.

They lie in ``npcrepro/papers/KEY/weights/METHOD``, and :func:`npcrepro.runs.predict.predict` takes that folder like the
one of a run, whose files it holds: parameters in half precision, no predictions, and in ``provenance.json`` under
``packed`` what the model card ``README.md`` says of scores, training and images. ``makers/`` has likewise the runs
whose maps the network takes in.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npcrepro.base.errors import InputError, pick
from npcrepro.base.files import read_json, sha256_of_file, write_json, write_text, writing_folder
from npcrepro.base.wording import DASH, in_words
from npcrepro.cohorts.prepared import PreparedCohort, prepared_folder, read_prepared
from npcrepro.protocol import registry
from npcrepro.protocol.method import PRINTED
from npcrepro.runs import per_patient
from npcrepro.runs.model_card import model_card
from npcrepro.runs.predict import PACKED, makers_of, method_of, read_run
from npcrepro.runs.records import Record
from npcrepro.runs.run import load_data, load_network
from npcrepro.statistics import summarise

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"
COPIED = ("config.json", "plan.json", "validated.json")
COMPARED = 3  # cases on which half precision is compared with the weights as they were trained
CHANGED = 0.01  # of the voxels that get a label: more may not change it
LARGEST_HALF = 65504.0
TABLE = ("name", "segments", "image", "trained on", "DSC", "MB")


def pack(record: Record, folder: Path, device: str = "auto") -> None:
    """Write a finished run as published weights; those that are in the folder are replaced.

    Parameters are kept in half precision, numbers beyond its range and integers as they are. Up to three cases are
    segmented with the weights before and after, and the card says in how many voxels the labels differ. Runs whose maps
    the network takes in are packed below ``makers``. No image, prediction or path of the machine is written.

    Args:
        record: of the run. Its cohort lies beside it, in ``prepared`` of the folder of runs, as training leaves it.
        folder: to write.
        device: auto, cpu or cuda.

    Raises:
        InputError: a run that is not finished or diverged, a run that lies in no folder of runs, no prepared cohort,
            half precision that changes more than one in a hundred of the labelled voxels, or a folder that holds
            something else.
    """
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD).is_file():
        raise InputError(f"{folder} holds something else than published weights (no {CARD}): give another folder")
    with writing_folder(folder) as new:
        _pack(read_run(record.folder), new, device)
        write_text(new / CARD, model_card(new))
        shutil.rmtree(folder, ignore_errors=True)


def _pack(record: Record, folder: Path, device: str) -> None:
    """Everything but the card."""
    from safetensors.torch import load_file

    from npcrepro.runs.checkpoint import write_tensors

    makers = {f"makers/{number}": maker for number, maker in enumerate(makers_of(record))}
    cohort, weights = _cohort_of(record), load_file(record.folder / "model.safetensors")
    halves = {name: _half(tensor) for name, tensor in weights.items()}
    packed = {
        **{name: getattr(cohort, name) for name in ("reference", "licence")},
        **_schedule(record),
        "scores": scores_of(record.cases),
        "half_precision": _compare(record, cohort, (weights, halves), device),
        "makers": list(makers),
    }
    for name in COPIED:
        if (record.folder / name).is_file():
            write_json(folder / name, read_json(record.folder / name))
    write_tensors(folder / "model.safetensors", halves)
    packed["sha256"] = sha256_of_file(folder / "model.safetensors")
    # Which runs it used is told by their places below a folder that nobody else has.
    provenance = {name: value for name, value in record.provenance.items() if name != "used"}
    write_json(folder / "provenance.json", provenance | {PACKED: packed})
    for name, maker in makers.items():
        _pack(maker, folder / name, device)


def _half(tensor: Tensor) -> Tensor:
    """A tensor in half precision, if it has fractions and none of its numbers is beyond the range."""
    fits = tensor.is_floating_point() and bool((tensor.abs() <= LARGEST_HALF).all())
    return tensor.half() if fits else tensor


def _cohort_of(record: Record) -> PreparedCohort:
    """The prepared cohort that a run was trained on."""
    runs = next(iter(record.folder.parents[4:5]), record.folder)
    path = prepared_folder(runs / "prepared", record.config["cohort"], record.config["data_sha256"])
    try:
        return read_prepared(path)
    except InputError as problem:
        cause = "`npcrepro data prepare COHORT --runs` with the folder of this run makes it"
        raise InputError(
            f"{record.folder} cannot be packed without the cohort it was trained on: {problem}; {cause}"
        ) from None


def _schedule(record: Record) -> dict[str, Any]:
    """Updates of training, and as a share of the images that the paper's own schedule shows to the method."""
    method, profile = record.config["method"], record.config["profile"]
    updates = record.updates
    whole = registry.load(record.config["paper"]).profile(PRINTED)
    own = method.get("batch_size")
    images = whole.updates * (own or whole.batch_size) * method["budget"]
    return {"updates": updates, "share_of_reported": round(updates * (own or profile["batch_size"]) / images, 6)}


def scores_of(cases) -> dict[str, dict[str, float | None]]:
    """Means over the tested patients of each structure, in all slices; doubtful labels are left out.

    Args:
        cases: rows of ``cases.csv`` of one run, as a data frame.

    Returns:
        For each structure the number of patients, the mean and standard deviation of their DSC, the mean HD95 (surfel)
        in mm and how many patients have one; ``None`` where there is no value. Empty where nobody was tested.
    """
    if not len(cases):
        return {}
    patients, found = per_patient.by_patient(cases), {}
    for structure in cases.structure.unique():
        mine = per_patient.select(patients, structure, "all_slices")
        dsc, hd95 = summarise(mine.dsc), summarise(mine.surfel_hd95_mm)
        means = {"dsc": dsc.mean, "dsc_sd": dsc.sd, "hd95_mm": hd95.mean}
        rounded = {name: None if isnan(mean) else round(mean, 4) for name, mean in means.items()}
        found[structure] = {"patients": len(mine), **rounded, "hd95_patients": hd95.n}
    return found


def _compare(
    record: Record, cohort: PreparedCohort, weights: tuple[Mapping[str, Tensor], ...], device: str
) -> dict[str, int]:
    """Segment a few cases, tested ones if there are any, with two sets of weights: voxels with a label, and those whose
    label is another one with the second set.

    Raises:
        InputError: the labels differ too much.
    """
    from npcrepro.models.outputs import decide
    from npcrepro.runs.devices import make_fabric

    fold, profile, method = record.config["fold"], record.config["profile"], record.method
    cases = cohort.cases_of(fold["test"] or fold["validation"] or fold["train"])[:COMPARED]
    fabric, network, data = make_fabric(device), load_network(record), load_data(record, cohort)
    module = fabric.setup_module(network).eval()
    about = {"activation": method.activation, "batch_size": profile["batch_size"], "device": fabric.device}
    labels = []
    for each in weights:
        network.load_state_dict(each)
        labels.append([decide(data.predict(module, case, **about)[None], method.threshold) for case in cases])
    labelled = sum(int((label > 0).sum()) for label in labels[0])
    changed = sum(int((one != other).sum()) for one, other in zip(*labels, strict=True))
    if changed > CHANGED * labelled:
        raise InputError(
            f"half precision changes the label of {changed:,} voxels in {record.folder}, where {labelled:,} have one: "
            "the network has hardly been trained, or its numbers are too small"
        )
    return {"cases": len(cases), "labelled": labelled, "changed": changed}


def published_weights() -> dict[str, Path]:
    """The folders of the weights that come with this package, by name, such as ``luo2020/unet``; papers are in the
    order of the book.

    Example:
        >>> all(name.count("/") == 1 for name in published_weights())
        True
    """
    folders = (registry.FOLDERS / key / "weights" for key in registry.KEYS)
    found = (path.parent for folder in folders for path in sorted(folder.glob("*/provenance.json")))
    return {f"{path.parents[1].name}/{path.name}": path for path in found}


def weights_of(name: str) -> Path:
    """The folder of published weights: ``luo2020/unet``, or ``luo2020`` for the method that the paper proposes.

    Raises:
        InputError: no such weights; the message has the nearest name.
    """
    published = published_weights()
    if not published:
        raise InputError(
            f"there are no weights {name!r}: this copy of the package has none; `npcrepro train` makes a run"
        )
    return pick(published, registry.find_method(name)[1].full_name if name in registry.KEYS else name, "weights")


def publish(run: Path | str, device: str = "auto") -> Path:
    """Pack a finished run where the weights of this package lie, and return the folder; errors as in `pack`."""
    record = read_run(Path(run))
    folder = registry.FOLDERS / record.config["paper"] / "weights" / record.config["method"]["name"]
    pack(record, folder, device)
    return folder


def table() -> list[tuple[str, ...]]:
    """A row for each of the published weights, with the columns of `TABLE`; DSC is the mean over structures and over
    the patients of the test fold."""
    rows: list[tuple[str, ...]] = []
    for name, folder in published_weights().items():
        record = Record(folder)
        method, scores = method_of(record), record.provenance[PACKED]["scores"].values()
        means = [score["dsc"] for score in scores if score["dsc"] is not None]
        tested = f"{sum(means) / len(means):.3f} (n = {max(s['patients'] for s in scores)})" if means else DASH
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        trained = f"{record.config['cohort']} (n = {len(record.config['fold']['train'])})"
        segments, image = in_words(method.structures), in_words(method.channels)
        rows.append((name, segments, image, trained, tested, f"{size / 1e6:.1f}"))
    return rows
