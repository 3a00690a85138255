"""What published runs have to be before they leave a house, or enter a book: complete, ours, and about nobody by name.

A computer cannot tell a pseudonym from a name. What it can tell: fields that no record has, free text, dates, names and
identifiers as DICOM writes them, numbers that contradict each other, and code that is not that of this version.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method, Profile
from npcrepro.runs.environment import PACKAGES
from npcrepro.runs.evaluation import CASE_COLUMNS, REGIONS
from npcrepro.runs.published import PLACE, Published
from npcrepro.runs.records import IDENTITY, SCORING_CODE, Configuration, code_of
from npcrepro.runs.training import HISTORY_COLUMNS

# Of a run, as its config.json and provenance.json have them. Another field may be anything.
RUN = {
    *("paper", "method", "cohort", "data_sha256", "split_sha256", "fold", "seed", "profile", "used", "code_sha256"),
    *("status", "diverged", "finished", "config_sha256", "scoring_sha256", "device", "devices", "deterministic"),
    *("precision", "seconds", "sessions", "choosing", "peak_gpu_memory_mib", "peak_memory_mib", "substituted", "axes"),
    "spacing_known",
    *("without_gradient", "versions", "python", "platform", "processor", "threads", "git_commit"),
}
FIELDS = {
    "profile": {field.name for field in dataclasses.fields(Profile)},
    "versions": set(PACKAGES),
    "seconds": {"train", "validate", "predict", "all"},
    "diverged": {"stage", "update", "loss", "samples"},
}
FOLD = {"number", "train", "validation", "test"}
NEEDED = {*IDENTITY, "case", "patient", "structure", "region", "status", "tp", "fp", "fn", "dsc"}
WORDS = ("paper", "method", "cohort", "profile", "case", "patient", "structure", "region", "status")
WORD = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}", re.ASCII)
HEX = re.compile(r"[0-9a-f]{40}(-dirty)?|[0-9a-f]{64}")
LONGEST = 300  # letters of a text in a record; the summaries of methods are the longest
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
# What a person can be found by, and what it is called in the refusal.
PERSONAL = {
    "a date": re.compile(
        r"(?<!\d)(?:(?:19|20)\d\d([-./]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
        r"|(?:0?[1-9]|[12]\d|3[01])[./-](?:0?[1-9]|1[0-2])[./-](?:19|20)\d\d)(?!\d)"
    ),
    "an identifier of DICOM": re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}"),
    "a name as DICOM writes it": re.compile(r"\w+\^\w+"),
    "a field of DICOM about the patient": re.compile(r"Patient'?s?[ _]?(?:Name|ID|Birth)|\(0010,", re.IGNORECASE),
}
SAME = 1e-6  # how far a DSC may be from that of its counts; tables have ten digits


def vet(folder: Path, name: str) -> None:
    """Refuse published runs that are incomplete, foreign, or may say who a patient is.

    Args:
        folder: as :func:`npcrepro.runs.published.publish` writes it.
        name: what the refusal calls it.

    Raises:
        InputError: one sentence with the file, the value and the likely cause.
    """
    if not (folder / "runs.json").is_file():
        raise InputError(f"{name} has no runs.json, without which nobody knows whose rows these are")
    try:
        found = Published(folder)
        content = read_json(folder / "runs.json")
        _vet_runs(found, content, name)
        _vet_tables(found, name)
        _vet_code(found, name)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(
            f"{name} cannot be read as published runs ({problem!r}): damaged, or not made by publish"
        ) from None
    days = {run["finished"][:10] for run in found.runs}  # a card tells when its weights were made
    for path in sorted(folder.glob("*.md")):
        text = path.read_text("utf-8")
        for day in days:
            text = text.replace(day, "")
        _refuse_personal(text, f"{name}/{path.name}")


def _vet_runs(found: Published, content: dict[str, Any], name: str) -> None:
    file = f"{name}/runs.json"
    _refuse_unknown("field", content, {"common", "methods", "folds", "runs"}, file)
    for run in (content["common"], *content["runs"]):
        _refuse_unknown("field", run, RUN, file)
        for part, known in FIELDS.items():
            _refuse_unknown("field", run.get(part, {}), known, f"{file}, {part},")
    for fold in content["folds"].values():
        _refuse_unknown("field", fold, FOLD, f"{file}, folds,")
        for case in (*fold["train"], *fold["validation"], *fold["test"]):
            _refuse_sentence(case, f"{file}, folds,")
    for place, text in _texts(content):
        field = place[-1]
        if field == "finished":
            fits = TIME.fullmatch(text) is not None
        elif field.endswith("sha256") or field == "git_commit":
            fits = HEX.fullmatch(text) is not None
        else:
            # The folder of a run that is used ends in eight digits of a hash, which may look like a date.
            _refuse_personal(re.sub(r"_[0-9a-f]{8}$", "", text) if "used" in place else text, f"{file}, {field},")
            fits = len(text) <= LONGEST
        if not fits:
            raise InputError(
                f"{file} has {text[:60]!r} as {field}, which no record has: free text, or not made by publish"
            )


def _texts(value: Any, place: tuple[str, ...] = ("",)) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in plain data, names of fields included, with the names of the fields above it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*place, "name of a field"), key
            yield from _texts(item, (*place, key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, place)
    elif isinstance(value, str):
        yield place, value


def _vet_tables(found: Published, name: str) -> None:
    runs = {tuple(str(run[column]) for column in PLACE) for run in found.runs}
    stages = {stage["name"] for method in found.methods.values() for stage in method["stages"]}
    cases, history = found.cases, found.history
    _refuse_unknown("column", cases.columns, {*IDENTITY, *CASE_COLUMNS}, f"{name}/cases-METHOD.csv")
    _refuse_unknown("column", history.columns, {*IDENTITY, *HISTORY_COLUMNS}, f"{name}/history-METHOD.csv")
    for column in sorted(NEEDED - set(cases.columns)):
        raise InputError(f"{name}/cases-METHOD.csv has no column {column}: made by another version of npcrepro")
    for table, file in ((cases, "cases-METHOD.csv"), (history, "history-METHOD.csv")):
        for column in WORDS:
            for text in table[column].unique() if column in table else ():
                _refuse_sentence(text, f"{name}/{file}, {column},")
        for text in set(table.columns) - {*WORDS, "suspect", "stage"}:
            if table[text].dtype.kind not in "iuf":
                raise InputError(f"{name}/{file} has text in the column {text}, where records have numbers")
        for place in set(table[PLACE].astype(str).itertuples(index=False, name=None)) - runs:
            raise InputError(
                f"{name}/{file} has rows of {place[0]}, fold {place[1]}, seed {place[2]}, a run that runs.json lacks"
            )
    for text in set(history.stage.unique() if "stage" in history else ()) - stages:
        raise InputError(f"{name}/history-METHOD.csv has the stage {text!r}, which none of its methods has: free text")
    for text in set(cases.region) - set(REGIONS):
        raise InputError(f"{name}/cases-METHOD.csv has the region {text!r}, which is none of {', '.join(REGIONS)}")
    counted = cases[["tp", "fp", "fn"]].astype(float)
    voxels = 2 * counted.tp + counted.fp + counted.fn
    off = (cases.dsc - 2 * counted.tp / voxels).abs() > SAME
    for row in cases[off].itertuples():
        raise InputError(
            f"{name}/cases-{row.method}.csv has the DSC {row.dsc:g} for {row.structure} of {row.case}, and its counts "
            "of voxels give another one: a number was changed"
        )


def _vet_code(found: Published, name: str) -> None:
    """Refuse runs of other code than that of this version, and runs that are not what their hash says."""
    scoring = code_sha256(SCORING_CODE)
    methods = {key: Method.from_data(data) for key, data in found.methods.items()}
    for run in found.runs:
        registry.load(run["paper"]).method(run["method"])
        method = methods[run["method"]]
        called = f"{name} has {run['paper']}/{run['method']}, fold {run['fold']}, seed {run['seed']}"
        if method.paper != run["paper"] or method.name != run["method"]:
            raise InputError(f"{called} under the definition of {method.full_name}: not made by publish")
        if run["code_sha256"] != code_of(method) or run["scoring_sha256"] != scoring:
            commit = f"commit {run['git_commit']}" if run.get("git_commit") else "an unknown commit"
            raise InputError(
                f"{called}, made by other code than this version has ({commit}): check it with that version"
            )
        if run["used"]:
            continue  # its hash covers those of runs that are not published
        fold = found.folds[str(run["fold"])]
        given = {part: run[part] for part in ("cohort", "data_sha256", "split_sha256", "seed")}
        if Configuration(method, Profile(**run["profile"]), fold=fold, **given).sha256 != run["config_sha256"]:
            raise InputError(f"{called}, whose settings are not those of its hash: a setting was changed afterwards")


def _refuse_unknown(what: str, names: Collection[str], known: Collection[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{where} has the {what} {name!r}, which no record has: it may say who a patient is")


def _refuse_sentence(text: object, where: str) -> None:
    if not isinstance(text, str) or not WORD.fullmatch(text):
        raise InputError(
            f"{where} has {text!r}, which is no pseudonym of one word: it may be a person's name, or free text"
        )
    _refuse_personal(text, where)


def _refuse_personal(text: str, where: str) -> None:
    for what, pattern in PERSONAL.items():
        if seen := pattern.search(text):
            raise InputError(f"{where} has {seen[0]!r}, which looks like {what}: it may say who a patient is")
