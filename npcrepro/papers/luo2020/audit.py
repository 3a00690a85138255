"""Checks on Luo et al. 2020."""

from math import ceil, sqrt
from typing import Any

import numpy as np
from scipy import stats

from npcrepro.base.wording import in_words, percent
from npcrepro.findings.audit.checks import TINY, Finding, Reported, check, fits_f1_of_means, half, jsc_of, spent_after

BATCHES = (4, 8, 16)  # the paper states none; what fitted a GPU of that time
SLICES_SD = 10  # of the number of slices of a patient; not printed, assumed
EXTREME = (0.1, 0.95)


def _columns(reported: Reported) -> dict[str, np.ndarray]:
    rows = reported["tables"]["table1"]
    return {name: np.array([row[name] for row in rows]) for name in ("dsc", "auc", "f1", "jsc")}


def _models(reported: Reported) -> list[str]:
    return [row["model"] for row in reported["tables"]["table1"]]


@check("U01", where="Equation 4, Table 1",
    claim="JSC and DSC are reported for four networks, for bit vectors.",
    reading="The two columns are averages over different things, or one of them is computed on probabilities.",
    consequence="Table 1 is no target; all metrics are computed from one hard mask.")  # fmt: skip
def jsc_below_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "jsc")
    above = data["jsc"] - data["dsc"] > 2 * size + TINY
    lines = [
        f"{model}: JSC {jsc:.4f}, and no mask has one above its DSC of {dsc:.4f}."
        for model, jsc, dsc in zip(_models(reported), data["jsc"], data["dsc"], strict=True)
    ]
    return Finding("impossible" if above.any() else "consistent", tuple(lines), {"rows": above.sum()})


@check("U02", where="Equations 4 and 6, Table 1",
    claim="F1 and DSC are reported for bit vectors, where they are the same number.",
    reading="DSC was computed on probabilities, F1 on the mask; or F1 counts the pixels of all structures together, "
    "DSC each by itself; or F1 is of mean precision and recall, where it fits.",
    consequence="One hard DSC for each patient and structure.")  # fmt: skip
def f1_is_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "f1")
    difference = data["f1"] - data["dsc"]
    shown = in_words([f"{model} {value:+z.4f}" for model, value in zip(_models(reported), difference, strict=True)])
    differ = np.abs(difference) > 2 * size + TINY
    outside = ~fits_f1_of_means(data["dsc"], data["f1"], size)
    fit = f"{(~outside).sum()} of {len(outside)} rows fit an F1 made of mean precision and mean recall."
    lines = [f"F1 minus DSC: {shown}.", fit]
    lines += [
        f"{model}: such an F1 of {f1:.4f} leaves a DSC of {2 * f1 - 1:.4f} to {f1:.4f}; reported {dsc:.4f}."
        for model, f1, dsc, wrong in zip(_models(reported), data["f1"], data["dsc"], outside, strict=True)
        if wrong
    ]
    # Averages of one number may differ in what is averaged, which is not printed.
    numbers = {"largest": difference.max(), "rows": outside.sum()}
    return Finding("cannot tell" if differ.any() else "consistent", tuple(lines), numbers)


@check("U03", where="Table 1",
    claim="JSC and F1 are means over the same masks (if DSC is another number, see U02).",
    reading="Absent structures were scored as 1, and the columns were averaged over different units.",
    consequence="The rule for empty structures is stated, and absent ones are missing values.")  # fmt: skip
def jsc_and_f1(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "jsc")
    low, high = jsc_of(data["f1"] - size), data["f1"] + size
    outside = (data["jsc"] + size < low - TINY) | (data["jsc"] - size > high + TINY)
    # Between the extremes a mask loses at least this much from F1 to JSC.
    least = min(f - jsc_of(f) for f in EXTREME)
    lines = []
    for model, f1, jsc, wrong in zip(_models(reported), data["f1"], data["jsc"], outside, strict=True):
        share = max(0.0, 1 - (f1 - jsc) / least)
        low_f1, high_f1 = EXTREME
        inside = f"inside only if at least {percent(share)} of the masks have an F1 below {low_f1} or above {high_f1}"
        more = "outside" if wrong else inside
        lines.append(f"{model}: JSC between {jsc_of(f1):.4f} and {f1:.4f}, reported {jsc:.4f}: {more}.")
    return Finding("impossible" if outside.any() else "consistent", tuple(lines), {"rows": outside.sum()})


def largest_dsc(auc: Any) -> Any:
    """The largest DSC that probabilities with this AUC can have, at whatever threshold: 2 A / (1 + A).

    A mask with sensitivity s and a share f of false positives in the background ranks the pairs of a found pixel and a
    background pixel outside it rightly, so that A >= s (1 - f). As long as the structure fills at most A / (1 + A) of
    the image, the DSC is then largest without false positives, at s = A. Concave in A, so that it holds for means.

    Example:
        >>> round(largest_dsc(0.8), 3)
        0.889
    """
    return 2 * auc / (1 + auc)


def largest_dsc_of_mask(auc: Any) -> Any:
    """The largest DSC of a hard mask whose AUC was computed from the mask itself: 2 - 1 / A.

    Such an AUC is (1 + s - f) / 2. As long as the structure fills at most 1 - 1 / (2 A) of the image, the DSC is
    largest without false positives, at s = 2 A - 1. Concave in A for A >= 0.5, so that it holds for means.

    Example:
        >>> round(largest_dsc_of_mask(0.8), 3)
        0.75
    """
    return 2 - 1 / auc


@check("U04", where="Equation of AUC, Table 1",
    claim="AUC, a sum of ranks, is reported beside DSC.",
    reading="The ranks are those of probabilities; or AUC and DSC are averages over different things.",
    consequence="AUC comes from probabilities, for each structure, or is left out.")  # fmt: skip
def auc_and_dsc(reported: Reported) -> Finding:
    data, size = _columns(reported), half(reported, "auc")
    auc, least = data["auc"] + size, data["dsc"] - size
    scores, mask = largest_dsc(auc), largest_dsc_of_mask(auc)
    above, beyond = least > mask + TINY, least > scores + TINY
    lines = [
        f"{model}: with an AUC of {row:.4f}, the DSC is at most {soft:.4f} for probabilities and {hard:.4f} for a hard "
        f"mask; reported {dsc:.4f}."
        for model, row, soft, hard, dsc in zip(_models(reported), data["auc"], scores, mask, data["dsc"], strict=True)
    ]
    small = np.clip(1 - 1 / (2 * auc), 0, 1).min()
    lines.append(f"Both limits are for structures that fill less than {percent(small)} of their image.")
    if above.any() and not beyond.any():
        # Found are at least D / (2 - D) of the structure; what is left of the AUC is for the missed pixels.
        found = data["dsc"] / (2 - data["dsc"])
        ranks = 100 * ((data["auc"] - found) / (1 - found))[above]
        lines.append(
            f"Where only probabilities fit, the pixels that a mask with these numbers misses rank above at most "
            f"{in_words(ranks, '.0f')} % of the background: unusual but possible."
        )
    # Not "impossible", as we first had it by the limit of a mask alone: the paper does not say of what the ranks are,
    # and ranks of probabilities allow every row.
    verdict = "impossible" if beyond.any() else "cannot tell" if above.any() else "consistent"
    return Finding(verdict, tuple(lines), {"rows": above.sum(), "beyond": beyond.sum()})


@check("U05", where="Data",
    claim="Five folds with 7,112 training and 1,777 test images of 8,889.",
    reading="The numbers are those of one fold, rounded down.",
    consequence="Four folds have 1,778 images and one has 1,777.")  # fmt: skip
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


@check("U06", where="Data",
    claim="The test images are independent of the training images.",
    reading="The counts are a nominal fifth, or the fold sizes are a coincidence.",
    consequence="Folds are of patients; the split by slice is run once to measure what it adds.")  # fmt: skip
def independent_test(reported: Reported) -> Finding:
    paper, text = reported["paper"], reported["text"]
    images, patients, folds = paper["slices"], paper["patients"], text["folds"]
    fifths = images // folds, ceil(images / folds)
    even = text["test_slices"] in fifths
    each = images / patients
    sizes = [patients // folds + (fold < patients % folds) for fold in range(folds)]
    chance, *others = (
        sum(stats.norm.pdf(fifths, n * each, sd * sqrt(n)).sum() for n in sizes) / folds
        for sd in (SLICES_SD, *np.arange(0.5, 40, 0.5))
    )
    beside = 1 - (1 / folds) ** 2
    lines = (
        f"The test set of {text['test_slices']} slices is a fifth of {images}, rounded. A fold of {min(sizes)} or "
        f"{max(sizes)} patients has such a size with a chance of {percent(chance, 1)}, if patients have {each:.1f} "
        f"slices (sd {SLICES_SD}, assumed), and of at most {percent(max(others), 1)} with another sd.",
        f"Split by image, a test slice has a neighbour among the training slices with a chance of {beside:.2f}.",
    )
    fits = "consistent" if text["folds_are_of"] == "patients" else "cannot tell"
    verdict = "inconsistent" if even and chance < 0.05 else fits
    return Finding(verdict, lines, {"chance": chance, "beside": beside})


@check("U07", where="Section 3.3",
    claim="The rate 0.001 is multiplied by 0.9 every 10 iterations, for 100 epochs.",
    reading="'Iterations' means epochs.",
    consequence="x 0.9 every 10 epochs; the reported unit is a method of its own.")  # fmt: skip
def learning_rate(reported: Reported) -> Finding:
    text = reported["text"]
    decay, every = text["decay"], text["decay_every_iterations"]
    lines = []
    for batch in BATCHES:
        epoch = ceil(text["training_slices"] / batch)
        share = decay ** (epoch // every)
        lines.append(f"Batch {batch}: after one epoch of {epoch:,} iterations the rate is {share:.1e} of the first.")
    epochs = spent_after(0.99, decay, every) / ceil(text["training_slices"] / BATCHES[-1])
    lines.append(
        f"99 % of all learning is spent after {epochs:.1f} epochs of batch {BATCHES[-1]}; the rates add up to "
        f"{text['learning_rate'] * every / (1 - decay):.3f}."
    )
    lines.append(f"Read as epochs, the last rate is x {decay ** ((text['epochs'] - 1) // every):.2f}.")
    usable = epochs > 0.05 * text["epochs"]
    return Finding("consistent" if usable else "inconsistent", tuple(lines), {"epochs": epochs})


def printed_dice(
    overlap: float, predicted: float, labelled: float, pixels: float, factor: float = 1, epsilon: float = 1e-5
) -> float:
    """The loss of equation 1 from areas in pixels: a term of the foreground and one of the background.

    With the usual ``factor`` of 2 before the overlap the loss is 1 minus the mean of the two terms.
    """
    outside = pixels - predicted - labelled + overlap
    front = (factor * overlap + epsilon) / (predicted + labelled + epsilon)
    back = (factor * outside + epsilon) / (2 * pixels - predicted - labelled + epsilon)
    return 1 - (front + back) / factor


@check("U08", where="Equation 1",
    claim="The Dice loss has a term of the foreground and one of the background, without the factor 2.",
    reading="It was used on slices that show the structure; for a union of all structures every slice does.",
    consequence="Built as reported, over all structures; with the factor 2, and without absent ones, are methods."
)  # fmt: skip
def dice_loss(reported: Reported) -> Finding:
    pixels, area = float(np.prod(reported["paper"]["matrix"])), 1000
    cases = {
        "perfect mask": (area, area, area),
        "structure missed": (0, 0, area),
        "both empty": (0, 0, 0),
        "one false pixel on an empty slice": (0, 1, 0),
    }
    factor = reported["text"]["factor_of_overlap"]
    losses = {name: round(printed_dice(*areas, pixels, factor), 6) + 0.0 for name, areas in cases.items()}
    shown = in_words([f"{name} {value:.2f}" for name, value in losses.items()])
    # A right answer is worth more where the structure is absent. That matters only if such slices enter the loss, and
    # even then it may be meant: not "inconsistent", as we first had it.
    uneven = abs(losses["both empty"] - losses["perfect mask"]) > 0.01
    absent = reported["text"]["absent_structures_in_loss"]
    lines = (
        f"Loss: {shown}.",
        f"Whether absent structures enter it is {'not stated' if absent is None else 'stated'}.",
    )
    matters = "not stated" if absent is None else "cannot tell" if absent else "consistent"
    return Finding(matters if uneven else "consistent", lines, losses)


@check("U09", where="Data, equations 1 and 2",
    claim="One network segments 14 structures.",
    reading="One output for each structure, although equations 1 and 2 have a single one.",
    consequence="15 classes with a loss for each; 14 separate outputs are the alternative.")  # fmt: skip
def outputs(reported: Reported) -> Finding:
    text = reported["text"]
    lines = (
        f"The list has {len(text['structures'])} names; {in_words(text['no_tissue'])} are no tissue, and the clinical "
        "volumes overlap organs.",
        "The number of outputs and how structures are averaged are "
        + ("not stated." if text["outputs"] is None else f"stated: {text['outputs']}."),
    )
    # One for each structure, with or without the background.
    enough = text["outputs"] in (len(text["structures"]), len(text["structures"]) + 1)
    return Finding("not stated" if text["outputs"] is None else "consistent" if enough else "inconsistent", lines)


@check("U10", where="Sections 2.1 and 3.4",
    claim="With just one improvement the network already beats most others; depth makes no difference.",
    reading="The experiments were made and not reported.",
    consequence="The ablation is run anew, with the model chosen on validation patients.")  # fmt: skip
def ablation(reported: Reported) -> Finding:
    models, dsc = _models(reported), dict(zip(_models(reported), _columns(reported)["dsc"], strict=True))
    others = ("U-Net", "FCN-8", "Mask R-CNN")
    ablated = [name for name in models if name not in (*others, "proposed")]
    beaten = [sum(dsc[name] > dsc[other] for other in others) for name in ablated]
    line = f"Table 1 has {len(models)} rows: {in_words(models)}."
    most = "consistent" if min(beaten, default=0) > len(others) / 2 else "inconsistent"
    return Finding(most if ablated else "not stated", (line,), {"rows": len(ablated)})
