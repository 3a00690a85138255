"""Checks on Luo et al. 2020."""

from __future__ import annotations

from math import ceil, log, sqrt

import numpy as np
from scipy import stats

from npcrepro.audit.frame import TINY, Finding, Reported, check, half, jsc_of, listed

BATCHES = (4, 8, 16)  # the paper states none; what fitted a GPU of that time
SLICES_SD = 10  # of the number of slices of a patient; not printed, assumed
EXTREME = (0.1, 0.95)


def _columns(reported: Reported) -> dict[str, np.ndarray]:
    rows = reported["tables"]["table1"]
    return {name: np.array([row[name] for row in rows]) for name in ("dsc", "auc", "f1", "jsc")}


def _models(reported: Reported) -> list[str]:
    return [row["model"] for row in reported["tables"]["table1"]]


@check(
    "U01",
    claim="JSC and DSC are printed for four networks, for bit vectors.",
    where="Equation 4, Table 1",
    reading="The two columns are averages over different things, or one of them is computed on probabilities.",
    consequence="Table 1 is no target; all metrics are computed from one hard mask.",
)
def jsc_below_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "jsc")
    above = data["jsc"] - data["dsc"] > 2 * size + TINY
    lines = [
        f"{model}: JSC {jsc:.4f}, and no mask has one above its DSC of {dsc:.4f}."
        for model, jsc, dsc in zip(_models(reported), data["jsc"], data["dsc"], strict=True)
    ]
    return Finding("impossible" if above.any() else "consistent", tuple(lines), {"rows": above.sum()})


@check(
    "U02",
    claim="F1 and DSC are printed for bit vectors, where they are the same number.",
    where="Equations 4 and 6, Table 1",
    reading="DSC was computed on probabilities, F1 on the mask.",
    consequence="One hard DSC for each patient and structure.",
)
def f1_is_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "f1")
    difference = data["f1"] - data["dsc"]
    shown = listed([f"{model} {value:+z.4f}" for model, value in zip(_models(reported), difference, strict=True)])
    differ = np.abs(difference) > 2 * size + TINY
    return Finding(
        "impossible" if differ.any() else "consistent", (f"F1 minus DSC: {shown}.",), {"largest": difference.max()}
    )


@check(
    "U03",
    claim="JSC and F1 are means over the same masks (if DSC is another number, see U02).",
    where="Table 1",
    reading="Absent structures were scored as 1, and the columns were averaged over different units.",
    consequence="The rule for empty structures is stated, and absent ones are missing values.",
)
def jsc_and_f1(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "jsc")
    low, high = jsc_of(data["f1"] - size), data["f1"] + size
    outside = (data["jsc"] + size < low - TINY) | (data["jsc"] - size > high + TINY)
    # Between the extremes a mask loses at least this much from F1 to JSC.
    least = min(f - jsc_of(f) for f in EXTREME)
    lines = []
    for model, f1, jsc, wrong in zip(_models(reported), data["f1"], data["jsc"], outside, strict=True):
        share = max(0.0, 1 - (f1 - jsc) / least)
        more = "outside" if wrong else f"inside if {100 * share:.0f} % of the masks are nearly empty or nearly perfect"
        lines.append(f"{model}: JSC between {jsc_of(f1):.4f} and {f1:.4f}, printed {jsc:.4f}: {more}.")
    return Finding("impossible" if outside.any() else "consistent", tuple(lines), {"rows": outside.sum()})


@check(
    "U04",
    claim="AUC and DSC are of the same masks.",
    where="Table 1",
    reading="AUC was averaged over something else than DSC.",
    consequence="AUC comes from probabilities, for each structure, or is left out.",
)
def auc_and_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "auc")
    # A hard mask has AUC = (sensitivity + specificity) / 2, and the largest DSC without false positives.
    bound = 2 - 1 / (data["auc"] + size)
    above = data["dsc"] - size > bound + TINY
    lines = [
        f"{model}: an AUC of {auc:.4f} leaves a DSC of at most {limit:.4f}; printed {dsc:.4f}."
        for model, auc, limit, dsc in zip(_models(reported), data["auc"], bound, data["dsc"], strict=True)
    ]
    return Finding("impossible" if above.any() else "consistent", tuple(lines), {"rows": above.sum()})


@check(
    "U05",
    claim="Five folds with 7,112 training and 1,777 test images of 8,889.",
    where="Data",
    reading="The numbers are those of one fold, rounded down.",
    consequence="Four folds have 1,778 images and one has 1,777.",
)
def fold_sizes(reported: Reported) -> Finding:
    text, images = reported["text"], reported["paper"]["slices"]
    sums = text["training_slices"] + text["test_slices"] == images
    tested = text["folds"] * text["test_slices"]
    lines = (
        f"{text['training_slices']} + {text['test_slices']} = {text['training_slices'] + text['test_slices']}.",
        f"{text['folds']} x {text['test_slices']} = {tested}, {images - tested} less than all.",
    )
    verdict = "consistent" if tested == images else "rounding" if abs(images - tested) < text["folds"] else None
    return Finding(verdict if sums and verdict else "inconsistent", lines, {"untested": images - tested})


@check(
    "U06",
    claim="The test images are independent of the training images.",
    where="Data",
    reading="The fold sizes are a coincidence.",
    consequence="Folds are of patients; the split by slice is run once to measure what it adds.",
)
def independent_test(reported: Reported) -> Finding:
    paper, text = reported["paper"], reported["text"]
    images, patients, folds = paper["slices"], paper["patients"], text["folds"]
    even = text["test_slices"] in (images // folds, ceil(images / folds))
    each = images / patients
    sizes = [patients // folds + (fold < patients % folds) for fold in range(folds)]
    chance = np.mean([stats.norm.pdf(text["test_slices"], n * each, SLICES_SD * sqrt(n)) for n in sizes])
    beside = 1 - (1 / folds) ** 2
    lines = (
        f"{text['test_slices']} is a fifth of {images}, which folds of {min(sizes)} or {max(sizes)} patients with "
        f"{each:.1f} slices each hit with a chance of {100 * chance:.1f} %.",
        f"Split by image, a test slice has a neighbour among the training slices with a chance of {beside:.2f}.",
    )
    verdict = "inconsistent" if even and chance < 0.05 else "cannot tell"
    return Finding(verdict, lines, {"chance": chance, "beside": beside})


def spent_after(share: float, decay: float, every: int) -> float:
    """Iterations after which a share of the sum of all learning rates is spent."""
    return every * log(1 - share) / log(decay)


@check(
    "U07",
    claim="The rate 0.001 is multiplied by 0.9 every 10 iterations, for 100 epochs.",
    where="Section 3.3",
    reading="'Iterations' means epochs.",
    consequence="x 0.9 every 10 epochs; the printed unit is a method of its own.",
)
def learning_rate(reported: Reported) -> Finding:
    text = reported["text"]
    decay, every = text["decay"], text["decay_every_iterations"]
    lines = []
    for batch in BATCHES:
        epoch = ceil(text["training_slices"] / batch)
        lines.append(f"Batch {batch}: after one epoch of {epoch} iterations x {decay ** (epoch // every):.1e}.")
    epochs = spent_after(0.99, decay, every) / ceil(text["training_slices"] / BATCHES[-1])
    lines.append(
        f"99 % of all learning is spent after {epochs:.1f} epochs of batch {BATCHES[-1]}; the rates add up to "
        f"{text['learning_rate'] * every / (1 - decay):.3f}."
    )
    lines.append(f"Read as epochs, the last rate is x {decay ** (text['epochs'] / every):.2f}.")
    usable = epochs > 0.05 * text["epochs"]
    return Finding("consistent" if usable else "inconsistent", tuple(lines), {"epochs": epochs})


def printed_dice(overlap: float, predicted: float, labelled: float, pixels: float, epsilon: float = 1e-5) -> float:
    """The loss of equation 1 from areas in pixels: a term of the foreground and one of the background."""
    outside = pixels - predicted - labelled + overlap
    front = (overlap + epsilon) / (predicted + labelled + epsilon)
    back = (outside + epsilon) / (2 * pixels - predicted - labelled + epsilon)
    return 1 - front - back


@check(
    "U08",
    claim="The Dice loss has a term of the foreground and one of the background, without the factor 2.",
    where="Equation 1",
    reading="It is meant for slices that show the structure.",
    consequence="The overlap has a factor 2, and absent structures are left out; the printed form is a method.",
)
def dice_loss(reported: Reported) -> Finding:
    pixels, area = float(np.prod(reported["paper"]["matrix"])), 1000
    cases = {
        "perfect mask": (area, area, area),
        "structure missed": (0, 0, area),
        "both empty": (0, 0, 0),
        "one false pixel on an empty slice": (0, 1, 0),
    }
    losses = {name: round(printed_dice(*areas, pixels), 6) + 0.0 for name, areas in cases.items()}
    shown = listed([f"{name} {value:.2f}" for name, value in losses.items()])
    # A right answer should be worth the same whether the structure is there or not.
    fits = abs(losses["both empty"] - losses["perfect mask"]) < 0.01 and abs(losses["perfect mask"]) < 0.01
    return Finding("consistent" if fits else "inconsistent", (f"Loss: {shown}.",), losses)


@check(
    "U09",
    claim="One network segments 14 structures.",
    where="Data, equations 1 and 2",
    reading="One output for each structure, although equations 1 and 2 have a single one.",
    consequence="15 classes with a loss for each; 14 separate outputs are the alternative.",
)
def outputs(reported: Reported) -> Finding:
    text = reported["text"]
    lines = (
        f"The list has {len(text['structures'])} names; {listed(text['no_tissue'])} are no tissue, and the clinical "
        "volumes overlap organs.",
        "The number of outputs and how structures are averaged are "
        + ("not stated." if text["outputs"] is None else f"stated: {text['outputs']}."),
    )
    return Finding("cannot tell" if text["outputs"] is None else "consistent", lines)


@check(
    "U10",
    claim="With just one improvement the network already beats most others; depth makes no difference.",
    where="Sections 2.1 and 3.4",
    reading="The experiments were made and not printed.",
    consequence="The ablation is run anew, with the model chosen on validation patients.",
)
def ablation(reported: Reported) -> Finding:
    models = _models(reported)
    ablated = [name for name in models if name not in ("U-Net", "FCN-8", "Mask R-CNN", "proposed")]
    line = f"Table 1 has {len(models)} rows: {listed(models)}."
    return Finding("consistent" if ablated else "cannot tell", (line,), {"rows": len(ablated)})
