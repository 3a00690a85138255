"""The model card of published weights: what they are for, where they come from, and what they must not be used for."""

from pathlib import Path

from npcrepro.base.wording import DASH, in_words, percent, plural
from npcrepro.cohorts.phantom.cohort import LICENCE as SYNTHETIC
from npcrepro.protocol import registry
from npcrepro.protocol.method import Method
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
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(record, method).items())
    limits = "\n".join(f"* {limit}" for limit in _limits(record, method))
    return f"""# {method.full_name}

{method.title} of {registry.PAPERS[method.paper].title}, trained by `npcrepro`. {method.summary}.

| | |
|---|---|
{facts}

{_scores(record)}

## Not for

{limits}

## Use

```bash
npcrepro predict --weights {method.full_name} --cohort FOLDER --out DIR
```
"""


def _facts(record: Record, method: Method) -> dict[str, str]:
    config, provenance = record.config, record.provenance
    profile, fold, packed = config["profile"], config["fold"], provenance[PACKED]
    weights = sum(path.stat().st_size for path in record.folder.rglob("model.safetensors"))
    makers, compared = len(packed["makers"]), packed["half_precision"]
    training = "none of its own: the weights are of another method of the paper"
    if packed["updates"]:
        images = method.batch_size or profile["batch_size"]
        training = (
            f"{packed['updates']:,} updates of {plural(images, 'image')} (profile {profile['name']}), "
            f"{percent(packed['share_of_reported'], 1)} of the samples of profile `paper`"
        )
    # Of nnU-Net's recipe the training patients decide the size of the input.
    size = method.data.options.get("found", {}).get("patch") or profile["matrix"]
    for_what = "chose the weights" if any(stage.keeps_weights for stage in method.stages) else "for validation"
    with_makers = f", with {plural(makers, 'network')} whose maps it takes in" if makers else ""
    return {
        "segments": in_words(method.structures),
        "image": in_words(method.channels),
        "trained on": f"{plural(len(fold['train']), 'patient')} of {config['cohort']}; "
        f"{plural(len(fold['validation']), 'other')} {for_what}",
        "tested on": f"{plural(len(fold['test']), 'patient')} of fold {fold['number']}" if fold["test"] else "nobody",
        "images of training": f"{packed['reference'] or DASH}. Licence: {packed['licence'] or DASH}",
        "network": f"width {profile['width']:g}, input of {' x '.join(map(str, size))} voxels",
        "training": training,
        "seed": str(config["seed"]),
        "made on": f"{provenance['device']}, precision {provenance['precision']}, {provenance['finished'][:10]}",
        "weights": f"{weights / 1e6:.1f} MB in half precision{with_makers}; on {plural(compared['cases'], 'case')} "
        f"it changes the label of {compared['changed']:,} voxels, where {compared['labelled']:,} have one",
        "identity of the run": f"`{provenance['config_sha256'][:16]}`",
    }


def _scores(record: Record) -> str:
    scores = record.provenance[PACKED]["scores"]
    if not scores:
        return "Trained on all patients of the cohort, so that there are no scores."
    about = (
        "Means over the tested patients, without those with doubtful labels. A patient in whom nothing was found has "
        "no HD95 and is not in its mean; n says how many have one. A large HD95 means marked voxels far "
        "from the structure."
    )
    if max(score["patients"] for score in scores.values()) == 1:
        about += " One patient says nothing about others."
    lines = [about, "", "| structure | patients | DSC | sd | HD95 (mm) | n |", "|---|---|---|---|---|---|"]
    for structure, score in scores.items():
        forms = {"dsc": ".3f", "dsc_sd": ".3f", "hd95_mm": ".1f"}
        means = [DASH if score[name] is None else format(score[name], form) for name, form in forms.items()]
        lines.append(f"| {structure} | {score['patients']} | {' | '.join(means)} | {score['hd95_patients']} |")
    return "\n".join(lines)


def _limits(record: Record, method: Method) -> list[str]:
    stands_in, limits = record.provenance["substituted"], [NOT_FOR_PATIENTS]
    if record.provenance[PACKED]["licence"] == SYNTHETIC:
        limits.append("The images of training are synthetic. No image of a patient was seen.")
    if record.config["cohort"] in LIMITS:
        limits.append(LIMITS[record.config["cohort"]])
    for kind, names in (("channel", record.method.channels), ("structure", record.method.structures)):
        for name in names:
            if name in stands_in:
                limits.append(f"The {kind} {stands_in[name]} stands in for {name} of the paper.")
    return limits
