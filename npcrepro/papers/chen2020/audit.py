"""Checks on Chen et al. 2020."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats

from npcrepro.base.wording import in_words, percent
from npcrepro.findings.audit.checks import TINY, Finding, Reported, check, half, halvings

FULL = "MMFNet+multi-MLP+stdPool+self-transfer"
MULTI, SINGLE = "Multi-encoder multi-modality network", "Single-encoder multi-modality network"
PATCH = "Multi-modality patch-based CNN"
COMPARED = (PATCH, SINGLE, MULTI)
TITLES = {"dsc": "DSC", "ap": "AP", "loss_dice": "loss"}
MODALITIES = ("T1", "T2", "CET1")
ASKED = ("epochs_of_random_start", "rate_of_random_start")
USUAL_SD = 0.05  # of paired differences of the DSC; none is printed, assumed
ABOVE_THE_MEAN = 0.65  # share of patients, as DSC is skewed to the left; not printed, assumed


def rows(reported: Reported, table: str = "table1") -> dict[str, Mapping]:
    """Rows of a table by name."""
    return {row["model"]: row for row in reported["tables"][table]}


def recomputed_gains(reported: Reported) -> dict[str, dict[str, float]]:
    """Gains of the full network from Table I: DSC and AP in points, loss as it is."""
    table, gains = rows(reported), {}
    for name in COMPARED:
        full, other = table[FULL], table[name]
        gains[name] = {
            "dsc": 100 * (full["dsc"] - other["dsc"]),
            "ap": 100 * (full["ap"] - other["ap"]),
            "loss_dice": other["loss_dice"] - full["loss_dice"],
        }
    return gains


def printed_gains(reported: Reported) -> dict[str, dict[str, float]]:
    """The same as stated in the text."""
    columns = {"dsc": "dsc_points", "ap": "ap_points", "loss_dice": "loss_dice"}
    return {
        row["against"]: {name: row[column] for name, column in columns.items()}
        for row in reported["tables"]["section4_gains"]
    }


def transfer_gains(reported: Reported, metric: str = "dsc") -> dict[str, float]:
    """A metric with self-transfer minus the same without, for each configuration of Table II that has both."""
    table = rows(reported, "table2")
    ends = "+self-transfer"
    return {name: table[name + ends][metric] - row[metric] for name, row in table.items() if name + ends in table}


@check("C01", where="Section IV-E",
    claim="Gains of 11.08 %, 14.14 % and 0.1023; 6.39 %, 7.67 % and 0.0649; 1.86 %, 2.82 % and 0.0234.",
    reading="As reported, in percentage points; Table I is meant where Table II is cited.",
    consequence="None: the nine gains are those of Table I.")  # fmt: skip
def gains(reported: Reported) -> Finding:
    found, printed = recomputed_gains(reported), printed_gains(reported)
    exact = sum(abs(found[other][name] - printed[other][name]) < 1e-6 for other in found for name in found[other])
    relative = {other: found[other]["dsc"] / rows(reported)[other]["dsc"] for other in COMPARED}
    total = 3 * len(found)
    lines = [f"{exact} of {total} agree with Table I."]
    lines += [
        f"Against {other}: DSC {each['dsc']:.2f} and AP {each['ap']:.2f} points, loss {each['loss_dice']:.4f}; "
        f"relative gain of the DSC {relative[other]:.1f} %."
        for other, each in found.items()
    ]
    return Finding("consistent" if exact == total else "inconsistent", tuple(lines), {"exact": exact, "gains": total})


def least_loss(dsc: Any) -> Any:
    """The lowest mean Dice loss of probabilities whose masks, cut at 0.5, have this mean DSC D: (1 - D) / 3.

    The loss of one patient is lowest where found voxels have a probability of 1, missed ones of just 0.5 and no others
    any: it is then (1 - D) / (3 - D). Over patients that is concave in D, so that its mean is at least the chord.

    Example:
        >>> round(least_loss(0.7), 3)
        0.1
    """
    return (1 - dsc) / 3


@check("C02", where="Equations 1 and 14, Tables I and II",
    claim="DSC is of masks and the Dice loss of probabilities, so that they need not add up to 1.",
    consequence="Threshold 0.5; soft and hard DSC are both reported.")  # fmt: skip
def dsc_and_loss(reported: Reported) -> Finding:
    table = {**rows(reported), **rows(reported, "table2")}
    sums = {name: row["dsc"] + row["loss_dice"] for name, row in table.items()}
    flat = [total for name, total in sums.items() if name.startswith(("Patch", "U-net", "Multi-modality patch"))]
    deep = [total for total in sums.values() if total not in flat]
    full = table[FULL]
    smoothing = (2 - full["dsc"]) / 40_000
    lines = (
        f"2D networks {min(flat):.4f} to {max(flat):.4f}, 3D networks {min(deep):.4f} to {max(deep):.4f}.",
        f"The smoothing term explains {smoothing:.5f} for a tumour of 20,000 voxels.",
        f"A mean DSC of {full['dsc']:.4f} leaves probabilities a loss of at least {least_loss(full['dsc']):.4f}; "
        f"printed {full['loss_dice']:.4f}.",
    )
    size = half(reported, "dsc") + half(reported, "loss_dice")
    # Of the same masks the sum would be 1; not "inconsistent", as we first had it: equation 1 is of probabilities,
    # which leave the loss more room.
    if reported["text"]["loss_is_of"] == "masks":
        fits, broken = all(abs(total - 1) <= size + TINY for total in sums.values()), "inconsistent"
    else:
        bounds = [(row["loss_dice"], least_loss(row["dsc"])) for row in table.values()]
        fits, broken = all(least - size - TINY <= loss <= 1 + size for loss, least in bounds), "impossible"
    return Finding("consistent" if fits else broken, lines, {"largest": max(sums.values())})


def printed_dice(overlap: float, predicted: float, labelled: float, epsilon: float, factor: float = 2) -> float:
    """The loss of equation 1: the factor 2 multiplies the smoothing term, too; usually that has a ``factor`` of 1."""
    return 1 - (2 * overlap + factor * epsilon) / (predicted + labelled + epsilon)


@check("C03", where="Equation 1",
    claim="In the Dice loss the factor 2 multiplies the smoothing term as well.",
    reading="Few windows had no tumour; or the factor 2 belongs to the overlap alone.",
    consequence="1 - (2I + eps) / (P + G + eps); the reported form is a method.")  # fmt: skip
def dice_loss(reported: Reported) -> Finding:
    epsilon = reported["text"]["epsilon"]
    cases = {
        "both empty": (0, 0, 0),
        "100 false voxels on an empty patch": (0, 100, 0),
        "100 voxels, perfect": (100, 100, 100),
    }
    factor = reported["text"]["factor_of_epsilon"]
    losses = {name: printed_dice(*areas, epsilon, factor) for name, areas in cases.items()}
    shown = in_words([f"{name} {value:.3f}" for name, value in losses.items()])
    empty = reported["text"]["windows_without_tumour"]
    lines = (f"Loss: {shown}.", f"How many windows without tumour train is {'not stated' if empty is None else empty}.")
    # Nothing in the paper contradicts the equation; whether it is a misprint, and whether it matters, is not printed.
    uneven = abs(losses["both empty"] - losses["100 voxels, perfect"]) > 0.01
    matters = "not stated" if empty is None else "cannot tell" if empty else "consistent"
    return Finding(matters if uneven else "consistent", lines, losses)


@check("C04", where="Training",
    claim="149 patients, five folds, a quarter of the training part for validation, 75 updates of 8 in an epoch.",
    consequence="An epoch is about one pass; the same folds for pre-training and fusion.")  # fmt: skip
def patients_and_updates(reported: Reported) -> Finding:
    n, text, depth = reported["paper"]["patients"], reported["text"], reported["paper"]["matrix"][0]
    test = [n // text["folds"] + (fold < n % text["folds"]) for fold in range(text["folds"])]
    train = (n - max(test)) * (1 - text["validation_share"])
    patches = text["updates_of_an_epoch"] * text["batch"] / train
    slices = depth + (patches - 1) * text["window_step"]
    lines = (
        f"Folds of {in_words(test)}; some {train:.0f} patients train.",
        f"{patches:.1f} patches of a patient in an epoch: all windows of a volume of {slices:.0f} slices.",
    )
    plausible = depth < slices < 100
    return Finding("consistent" if sum(test) == n and plausible else "inconsistent", lines, {"slices": slices})


@check("C05", where="Table II, Section V",
    claim="Self-transfer improves every configuration, by DSC, AP and loss.",
    reading="As reported, by the sign.",
    consequence="Several seeds, with the missing baseline.")  # fmt: skip
def self_transfer(reported: Reported) -> Finding:
    found, table = transfer_gains(reported), rows(reported, "table2")
    shown, last = [f"{name} {gain:+z.4f}" for name, gain in found.items()], list(found.values())[-1]
    total = table[FULL]["dsc"] - table[MULTI]["dsc"]
    ap, loss = (transfer_gains(reported, name) for name in ("ap", "loss_dice"))
    lines = (
        f"Gain of the DSC: {in_words(shown)}.",
        f"The AP changes by {in_words(ap.values(), '+.4f')}, the loss by {in_words(loss.values(), '+.4f')}.",
        f"Of {100 * total:.2f} points of DSC over the baseline, {100 * (total - last):.2f} come without it.",
    )
    fits = min(*found.values(), *ap.values()) > 0 > max(loss.values())
    return Finding("consistent" if fits else "inconsistent", lines, {"last": last})


@check("C06", where="Table II",
    claim="Standard-deviation pooling helps in the channel and in the spatial attention.",
    reading="The two need each other.",
    consequence="Five seeds or more for each cell.")  # fmt: skip
def pooling(reported: Reported) -> Finding:
    table = rows(reported, "table2")
    base = table["MMFNet+multi-MLP"]["dsc"]
    names = {"channel": " (channel-attention)", "spatial": " (spatial-attention)", "both": ""}
    gain = {key: table[f"MMFNet+multi-MLP+stdPool{ending}"]["dsc"] - base for key, ending in names.items()}
    interaction = gain["both"] - gain["channel"] - gain["spatial"]
    shown = [f"{key} {value:+z.4f}" for key, value in gain.items()]
    sd = reported["text"]["sd_of_trainings"]
    line = (
        f"Gain of the DSC: {in_words(shown)}; interaction {interaction:+z.4f}; the spread of trainings is "
        f"{'not printed' if sd is None else f'{sd:.4f}'}."
    )
    if sd is None:
        return Finding("not stated", (line,), gain)
    # The difference of two trainings varies by the root of two times as much; twice that is hardly chance.
    chance = 2 * sqrt(2) * sd
    seen = "consistent" if min(gain.values()) > chance else "cannot tell"
    return Finding("inconsistent" if min(gain.values()) < -chance else seen, (line,), gain)


@check("C07", where="Table I",
    claim="More sequences and more encoders help.",
    reading="The 3D U-net is the one that is cited, another network than the single encoder; or that one was trained "
    "too little.",
    consequence="It is tuned before several encoders are compared with it; the sequence of the contour is recorded."
)  # fmt: skip
def order_of_series(reported: Reported) -> Finding:
    table = rows(reported)
    kinds = ("Patch-based CNN", "U-net", "3D U-net")
    dsc = {kind: {series: table[f"{kind} ({series})"]["dsc"] for series in MODALITIES} for kind in kinds}
    orders = {kind: sorted(MODALITIES, key=each.__getitem__, reverse=True) for kind, each in dsc.items()}
    single = table[SINGLE]["dsc"]
    better = [series for series, value in dsc["3D U-net"].items() if value > single]
    lines = (
        "; ".join(f"{kind}: {' > '.join(order)}" for kind, order in orders.items()) + ".",
        f"The network on three sequences ({single:.4f}) is below the 3D U-net on {in_words(better)} alone.",
    )
    same = len({tuple(order) for order in orders.values()}) == 1
    return Finding("consistent" if same and not better else "inconsistent", lines, {"better": len(better)})


@check("C08", where="Fusion block, Table II",
    claim="The channel attention reduces by r = 12, with two sequences as well.",
    reading="The division was rounded down, as is usual, or another r was used for two sequences.",
    consequence="r is four times the number of sequences.")  # fmt: skip
def reduction(reported: Reported) -> Finding:
    text = reported["text"]
    hidden = {n: [n * c / text["reduction"] for c in text["channels"]] for n in (3, 2)}
    lines = tuple(f"{n} sequences: {in_words(sizes, '.3g')} hidden units." for n, sizes in hidden.items())
    whole = all(size == int(size) for sizes in hidden.values() for size in sizes)
    return Finding("consistent" if whole else "cannot tell", lines)


@check("C09", where="Encoder, patches",
    claim="Four poolings of a patch of 16 x 256 x 256.",
    consequence="Fewer slices are padded; the share of tumour outside the patch is reported.")  # fmt: skip
def patch(reported: Reported) -> Finding:
    sides, spacing = reported["paper"]["matrix"], reported["paper"]["spacing_mm"]
    poolings = len(reported["text"]["channels"])
    bottom = [side / 2**poolings for side in sides]
    width_mm = sides[1] * spacing["yx"]
    heights = in_words([f"{sides[0] * step:.0f}" for step in spacing["z"]])
    lines = (
        f"The coarsest grid is {' x '.join(f'{side:g}' for side in bottom)}.",
        f"The patch is {width_mm:.0f} mm wide and {heights} mm high at the smallest and largest distance of slices.",
    )
    fits = min(halvings(side) for side in sides) >= poolings
    return Finding("consistent" if fits else "inconsistent", lines)


@check("C10", where="Figures 7 and 8",
    claim="Figures 7 and 8 show examples of results.",
    reading="They show what a good result looks like.",
    consequence="Patients are shown by rank, from the best to the worst, or the one in the middle.")  # fmt: skip
def examples(reported: Reported) -> Finding:
    shown, mean = [row["dsc"] for row in reported["tables"]["figure8"]], rows(reported)[FULL]["dsc"]
    above = sum(value > mean for value in shown)
    chance = stats.binom.sf(above - 1, len(shown), ABOVE_THE_MEAN)
    line = (
        f"{above} of {len(shown)} patients lie above the mean of {mean:.3f} (theirs is {np.mean(shown):.3f}); taken at "
        f"random the chance of that is about {chance:.2f}, if {percent(ABOVE_THE_MEAN)} of all patients do."
    )
    return Finding("cannot tell" if chance < 0.1 else "consistent", (line,), {"chance": chance})


@check("C11", where="Tables I and II",
    claim="The differences between configurations are real.",
    reading="The spread of paired differences is small.",
    consequence="Differences below 0.01 need several seeds and more patients.")  # fmt: skip
def significance(reported: Reported) -> Finding:
    n, table = reported["paper"]["patients"], rows(reported, "table2")
    gaps = {"full over several encoders": table[FULL]["dsc"] - rows(reported)[MULTI]["dsc"]}
    gaps |= {f"self-transfer on {name}": gain for name, gain in transfer_gains(reported).items()}
    gaps["third series"] = table[FULL]["dsc"] - table[f"{FULL}(T1&T2)"]["dsc"]
    factor = sqrt(n) / stats.t.isf(0.025, n - 1)
    lines = tuple(
        f"{name}: {gap:+z.4f} is significant if the sd of the differences is below {gap * factor:.4f}."
        for name, gap in gaps.items()
    )
    decided = min(gaps.values()) * factor > USUAL_SD
    limits = {name: gap * factor for name, gap in gaps.items()}
    limits["last self-transfer"] = list(transfer_gains(reported).values())[-1] * factor
    return Finding("consistent" if decided else "cannot tell", lines, limits)


@check("C12", where="Training",
    claim="Self-transfer and a random start are compared fairly.",
    reading="Both had the same number of updates.",
    consequence="A random start gets as many updates and the same schedule.")  # fmt: skip
def fair_comparison(reported: Reported) -> Finding:
    text = reported["text"]
    updates = text["epochs"] * text["updates_of_an_epoch"]
    series = len(MODALITIES)
    given, rate = ("not stated" if text[name] is None else text[name] for name in ASKED)
    line = (
        f"With self-transfer up to {series} x {updates} + {updates} updates; the epochs of a random start are {given}, "
        f"its learning rate is {rate}."
    )
    if None in (text[name] for name in ASKED):
        return Finding("not stated", (line,))
    # As many updates as all pre-trainings and the fusion together, at a rate that they had.
    fair = given >= (series + 1) * text["epochs"] and rate in text["learning_rates"]
    return Finding("consistent" if fair else "inconsistent", (line,))
