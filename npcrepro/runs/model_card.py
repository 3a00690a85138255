"""The model card of published weights: what they are for, where they come from, and what they must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npcrepro.base.wording import DASH, in_words, plural
from npcrepro.cohorts.phantom.cohort import LICENCE as SYNTHETIC
from npcrepro.protocol import registry
from npcrepro.runs.predict import PACKED, method_of
from npcrepro.runs.records import Record

NOT_FOR_PATIENTS = (
    "Not for treatment, diagnosis or planning. The weights are for research: to repeat the numbers of the book, and to "
    "try the method on other images."
)
# What a reader could take the patients of a cohort for, and what they are not.
LIMITS = {
    "OpenKBP_OAR": "The images are planning CT of cancers of the head and neck, on the coarse grid of dose planning. "
    "They are not of nasopharyngeal carcinoma alone.",
    "OpenKBP_PTV70": "PTV70 is the planning target volume of 70 Gy in cancers of the head and neck. It is not a gross "
    "tumour volume, and the cancers are not nasopharyngeal carcinoma alone.",
    "IBSI_STS": "The tumours are soft-tissue sarcomas. They are no nasopharyngeal carcinoma, and the network has never "
    "seen one.",
    "NPC_T2Slices": "The images are single slices, each of which shows the tumour. The network has not learnt which "
    "slices of a patient show none.",
}


def model_card(folder: Path) -> str:
    """The card of the weights in a folder, in Markdown; every number is of its ``config.json`` and
    ``provenance.json``."""
    record = Record(folder)
    method = method_of(record)
    title = registry.PAPERS[method.paper].title
    return "\n".join(
        [
            f"# {method.full_name}",
            "",
            f"{method.title} of {title}, trained by `npcrepro`. {method.summary}.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(record).items()),
            "",
            *_scores(record),
            "",
            "## Not for",
            "",
            *(f"* {limit}" for limit in _limits(record)),
            "",
            "## Use",
            "",
            "```bash",
            f"npcrepro predict --weights {method.full_name} --cohort FOLDER --out DIR",
            "```",
            "",
        ]
    )


def _facts(record: Record) -> dict[str, str]:
    method, config, provenance = method_of(record), record.config, record.provenance
    profile, fold, packed = config["profile"], config["fold"], provenance[PACKED]
    weights = sum(path.stat().st_size for path in record.folder.rglob("model.safetensors"))
    compared = packed["half_precision"]
    chose = len(fold["validation"])
    return {
        "segments": in_words(method.structures),
        "image": in_words(method.channels),
        "trained on": f"{plural(len(fold['train']), 'patient')} of {config['cohort']}; {plural(chose, 'other')} chose "
        "the weights",
        "tested on": f"{plural(len(fold['test']), 'patient')} of fold {fold['number']}" if fold["test"] else "nobody",
        "images of training": f"{packed['reference'] or DASH} Licence: {packed['licence'] or DASH}",
        "network": f"width {profile['width']:g}, input of {' x '.join(map(str, profile['matrix']))} voxels",
        "training": _training(profile, packed),
        "seed": str(config["seed"]),
        "made on": f"{provenance['device']}, precision {provenance['precision']}, {provenance['finished'][:10]}",
        "weights": f"{weights / 1e6:.1f} MB in half precision{_makers(packed)}; on {plural(compared['cases'], 'case')} "
        f"it changes the label of {compared['changed']:,} voxels, where {compared['labelled']:,} have one",
        "identity of the run": f"`{provenance['config_sha256'][:16]}`",
    }


def _training(profile: Mapping[str, Any], packed: Mapping[str, Any]) -> str:
    if not packed["updates"]:
        return "none of its own: the weights are of another method of the paper"
    updates, share = (
        f"{packed['updates']:,} updates of {plural(profile['batch_size'], 'image')}",
        100 * packed["share_of_reported"],
    )
    return f"{updates} (profile {profile['name']}), {share:.1f} % of the samples of the reported schedule"


def _makers(packed: Mapping[str, Any]) -> str:
    runs = len(packed["makers"])
    return f", with {plural(runs, 'network')} whose maps it takes in" if runs else ""


def _scores(record: Record) -> list[str]:
    scores = record.provenance[PACKED]["scores"]
    if not scores:
        return ["Trained on all patients of the cohort, so that there are no scores."]
    rows = [
        f"| {structure} | {score['patients']} | {_number(score['dsc'], '.3f')} | {_number(score['dsc_sd'], '.3f')} | "
        f"{_number(score['hd95_mm'], '.1f')} | {score['hd95_patients']} |"
        for structure, score in scores.items()
    ]
    about = (
        "Means over the tested patients, without those with doubtful labels. A patient in whom nothing was found has "
        "no HD95 and is not in its mean; n says how many have one."
    )
    return [about, "", "| structure | patients | DSC | sd | HD95 (mm) | n |", "|---|---|---|---|---|---|", *rows]


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _limits(record: Record) -> list[str]:
    method, stands_in = record.method, record.provenance["substituted"]
    limits = [NOT_FOR_PATIENTS]
    if record.provenance[PACKED]["licence"] == SYNTHETIC:
        limits.append("The images of training are synthetic. No image of a patient was seen.")
    if record.config["cohort"] in LIMITS:
        limits.append(LIMITS[record.config["cohort"]])
    for kind, names in (("The channel", method.channels), ("The structure", method.structures)):
        limits += [
            f"{kind} {stands_in[name]} stands in for {name} of the paper." for name in names if name in stands_in
        ]
    return limits
