"""Checks on Guo et al. 2021."""

from collections.abc import Mapping
from math import log, pi, prod, sqrt

import numpy as np
from scipy import stats

from npcrepro.base.wording import in_words, percent
from npcrepro.findings.audit.checks import TINY, Finding, Reported, check, fits_f1_of_means, half, halvings, spent_after
from npcrepro.protocol import registry

VNET_HALVINGS = 4  # of the cited network
USUAL_TUMOUR_CM3 = 20  # for scale
LEAST_SPHERICITY = 0.5  # of a tumour; our limit
RATES = (1, 2, 3, 4, 6, 12, 18)
PARTS = ("BUNet", "ACDNet")  # of the cascade


def rows(reported: Reported) -> list[Mapping]:
    """Rows of Table 1 that hold numbers, then the two physicians."""
    return [row for row in reported["tables"]["table1"] if row["dsc"] is not None] + [reported["text"]["physicians"]]


def _networks(reported: Reported) -> list[Mapping]:
    return rows(reported)[:-1]


def _row(reported: Reported, model: str) -> Mapping:
    return next(row for row in reported["tables"]["table1"] if row["model"] == model)


@check("G01", where="Section 4.2",
    claim="Five trainings with 87 + 9 + 24 patients give predictions for all 120.",
    reading="The five test sets are parts of one random division.",
    consequence="Five folds of patients, with validation patients from the rest.")  # fmt: skip
def five_trainings(reported: Reported) -> Finding:
    patients, text = reported["paper"]["patients"], reported["text"]
    tested = text["trainings"] * text["split"]["test"]
    drawn = patients * (1 - (1 - text["split"]["test"] / patients) ** text["trainings"])
    lines = (
        f"{text['trainings']} x {text['split']['test']} = {tested}; the parts add up to {sum(text['split'].values())}.",
        f"Drawn anew each time, they would show {drawn:.0f} different patients of {patients}.",
    )
    fits = tested == patients == sum(text["split"].values())
    return Finding("consistent" if fits else "inconsistent", lines, {"drawn": drawn})


@check("G02", where="Equations 8 and 10, Table 1",
    claim="DSC and F1 are reported as two metrics; both are the same function of TP, FP and FN.",
    reading="F1 was made of the mean precision and the mean recall.",
    consequence="One DSC for each patient; mean precision and mean recall beside it.")  # fmt: skip
def f1_is_dsc(reported: Reported) -> Finding:
    lines, differ, spreads, size = [], False, {}, half(reported, "dsc")
    for row in rows(reported):
        difference = row["f1"] - row["dsc"]
        differ |= abs(difference) > 2 * size + TINY
        # Of the harmonic mean of two means: F1 - mean DSC is about Var(P - R) / (4 F1).
        spreads[row["model"]] = sqrt(max(4 * row["f1"] * difference, 0))
        lines.append(
            f"{row['model']}: F1 - DSC = {difference:+z.3f}; "
            f"sd of precision - recall about {spreads[row['model']]:.2f}."
        )
    dsc, f1 = ([row[name] for row in rows(reported)] for name in ("dsc", "f1"))
    fits = fits_f1_of_means(dsc, f1, size)
    lines.append(
        f"An F1 of mean precision and mean recall is never below the mean DSC: {fits.sum()} of {len(fits)} rows fit. "
        "How F1 was averaged is not stated."
    )
    # Equal for each patient and unequal as averages: only the way of averaging, which is not printed, decides. An F1 of
    # counts that are pooled over patients may even lie below the mean DSC.
    return Finding("cannot tell" if differ else "consistent", tuple(lines), spreads)


@check("G03", where="Table 1",
    claim="The cascade is first, by DSC and by F1.",
    consequence="The order below the first place is no target.")  # fmt: skip
def order(reported: Reported) -> Finding:
    ordered = {name: sorted(_networks(reported), key=lambda row: row[name]) for name in ("dsc", "f1")}
    names = {name: [row["model"] for row in given] for name, given in ordered.items()}
    others = [row["dsc"] for row in ordered["dsc"][:-1]]
    lines = (
        f"By DSC {' < '.join(names['dsc'])}; by F1 {' < '.join(names['f1'])}.",
        f"The networks below the first differ by {max(others) - min(others):.3f} DSC at most.",
    )
    # The paper claims the first place alone; the others may change places.
    first = {given[-1] for given in names.values()}
    return Finding("consistent" if first == {"CSCN"} else "inconsistent", lines)


@check("G04", where="Section 4.4",
    claim="The network agrees better with the reference than two physicians with each other.",
    reading="The 28 patients are typical and the reference is of a third person.",
    consequence="The network is compared with each observer on the same patients.")  # fmt: skip
def two_physicians(reported: Reported) -> Finding:
    best, people = _row(reported, "CSCN"), reported["text"]["physicians"]
    difference = best["dsc"] - people["dsc"]
    error = sqrt(1 / reported["paper"]["patients"] + 1 / people["patients"])
    limit = difference / (stats.norm.isf(0.025) * error)
    sd = people["sd"]
    lines = (
        f"The difference of {difference:.3f} is significant if the standard deviation over patients is below "
        f"{limit:.3f}; {'none is reported' if sd is None else f'it is {sd:.3f}'}.",
        f"Distances: {best['assd_mm']:.3f} against {people['assd_mm']:.3f} mm.",
    )
    better = "not stated" if sd is None else "consistent" if sd < limit else "cannot tell"
    return Finding(better if difference > 0 else "inconsistent", lines, {"limit": limit})


def ball_of(dsc: float, distance_mm: float) -> tuple[float, float]:
    """Radius (mm) and volume (cm³) of the ball whose surface, moved by this mean distance, leaves this DSC."""
    radius = 3 * distance_mm / (2 * (1 - dsc))
    return radius, 4 / 3 * pi * radius**3 / 1000


@check("G05", where="Table 1",
    claim="DSC and ASSD of each row are of the same tumours.",
    reading="Tumours were small or very irregular.",
    consequence="ASSD in mm from the spacing, by a published definition, with tumour volumes beside it.")  # fmt: skip
def size_of_tumours(reported: Reported) -> Finding:
    given = [(row["model"], row["dsc"], row["assd_mm"]) for row in rows(reported)]
    own = len(given)
    given += [
        (f"Xue 2020 {row['model']}", row["dsc"]["mean"], row["asd_mm"]["mean"])
        for row in registry.reported("xue2020")["tables"]["section2"]
    ]
    balls = {name: ball_of(dsc, distance) for name, dsc, distance in given}
    lines = [f"{name}: a ball of radius {radius:.1f} mm, {volume:.1f} cm³." for name, (radius, volume) in balls.items()]
    stated = reported["text"]["tumour_volume_cm3"]
    volume = USUAL_TUMOUR_CM3 if stated is None else stated
    radius = (3 * 1000 * volume / (4 * pi)) ** (1 / 3)
    # Surface over volume is 3 / radius of the ball, so that the ratio of the two radii is the sphericity.
    sphericity = [radius_here / radius for radius_here, _ in list(balls.values())[:own]]
    lines.append(f"A tumour of {volume:g} cm³ would need a sphericity of {min(sphericity):.2f}.")
    usual = "consistent" if min(sphericity) >= LEAST_SPHERICITY and max(sphericity) <= 1 else "inconsistent"
    numbers = {name: volume for name, (_, volume) in balls.items()}
    return Finding("not stated" if stated is None else usual, tuple(lines), numbers)


@check("G06", where="Sections 4.1 and 4.2",
    claim="3D U-Net, V-Net and DeepLab take blocks of 24 x 24 x 8.",
    reading="V-Net was changed to fit, which is not stated.",
    consequence="Three poolings at most; V-Net is tried on larger blocks before its failure is repeated.")  # fmt: skip
def block_size(reported: Reported) -> Finding:
    block = reported["text"]["block"]
    possible = min(halvings(side) for side in block)
    share = prod(block) / prod(reported["text"]["image_size"])
    lines = (
        f"The block can be halved {possible} times; V-Net does so {VNET_HALVINGS} times.",
        f"It has {prod(block) / 1000:.2f} cm³, {percent(share, 2)} of the image.",
    )
    return Finding("not stated" if possible < VNET_HALVINGS else "consistent", lines, {"halvings": possible})


@check("G07", where="Section 3.2",
    claim="An atrous pyramid enlarges the receptive field.",
    reading="The rates were small.",
    consequence="Rates 1, 2, 3; a parameter.")  # fmt: skip
def atrous_rates(reported: Reported) -> Finding:
    block = reported["text"]["block"]
    sides = max(block), min(block)
    inside = {rate: [f"{max(0, side - rate) / side:.2f} of {side} voxels" for side in sides] for rate in RATES}
    lines = [f"Rate {rate}: {in_words(shares)}." for rate, shares in inside.items()]
    stated = reported["text"]["rates"]
    useful = stated is not None and max(stated) < min(block)
    verdict = "not stated" if stated is None else "consistent" if useful else "inconsistent"
    return Finding(verdict, ("Share of the outer taps of a kernel that lie inside the block.", *lines))


@check("G08", where="Section 4.2",
    claim="Adam, 0.001, x 0.9 every 500 iterations, 50,000 iterations.",
    consequence="Adam and 0.001 as reported; the rate falls 99 times in profile paper, and 21 times in smaller ones, "
    "where another method keeps the 99."
)  # fmt: skip
def learning_rate(reported: Reported) -> Finding:
    text = reported["text"]
    decay, every, iterations = text["decay"], text["decay_every_iterations"], text["iterations"]
    last = text["learning_rate"] * decay ** ((iterations - 1) // every)
    early = (1 - decay ** (10_000 / every)) / (1 - decay ** (iterations / every))
    spent = spent_after(0.99, decay, every) / iterations
    lines = (
        f"The last rate is {last:.1e}, its half-life {every * log(2) / log(1 / decay):.0f} iterations.",
        f"The first 10,000 iterations hold {percent(early)} of all learning; 99 % is spent after "
        f"{percent(spent)} of the iterations.",
    )
    return Finding("consistent" if spent > 0.05 else "inconsistent", lines, {"spent": spent})


@check("G09", where="Equations 4 and 7",
    claim="The weight, from 0 to 1, is the distance to the edge + 1 inside the tumour and 1 outside, to punish errors "
    "at the edge.",
    reading="The distance was meant to be reversed and scaled before use.",
    consequence="As reported by default; the reversed map and the plain focal loss are methods.")  # fmt: skip
def edge_weight(reported: Reported) -> Finding:
    lines, core, printed, least, largest = [], False, reported["text"]["weight_inside"], 1.0, 1.0  # 1 outside
    low, high = reported["text"]["weight_range"]
    for volume in (2, 12, 40):
        radius = (3 * 1000 * volume / (4 * pi)) ** (1 / 3)
        place = np.linspace(0, radius, 10_001)
        shell, weight = place**2, printed["at_edge"] + printed["more_for_each_mm"] * (radius - place)
        rim = place >= radius - 2
        voxels, weights = shell[rim].sum() / shell.sum(), (shell * weight)[rim].sum() / (shell * weight).sum()
        core |= bool(weights < voxels)
        least, largest = min(least, weight.min()), max(largest, weight.max())
        lines.append(
            f"A ball of {volume} cm³: {weight[-1]:.1f} at the edge, {weight[0]:.1f} in the centre; the outer 2 mm hold "
            f"{percent(voxels)} of the voxels and {percent(weights)} of the weight."
        )
    lines.append(f"Weights are said to lie between {low:g} and {high:g}; these from {least:.1f} to {largest:.1f}.")
    fits = not core and low <= least and largest <= high
    return Finding("consistent" if fits else "inconsistent", tuple(lines))


@check("G10", where="Section 4.4, Table 1, Figures 7 and 8",
    claim="V-Net never converged and gave no prediction.",
    reading="It gave masks that were too poor to score.",
    consequence="A failed network still has a score, with loss curve, block size and seeds beside it.")  # fmt: skip
def vnet(reported: Reported) -> Finding:
    row, figures = _row(reported, "V-Net"), reported["text"]["figures_of_vnet"]
    filled = sum(row[name] is not None for name in ("dsc", "assd_mm", "f1"))
    line = f"{filled} of 3 cells of its row are filled; the captions of figures {in_words(figures)} name it."
    return Finding("inconsistent" if figures and not filled else "consistent", (line,), {"filled": filled})


@check("G12", where="Table 1",
    claim="The cascade is better than its parts.",
    reading="The missing row of the first stage lies below the cascade.",
    consequence="First stage, second stage alone, cascade without fusion and full cascade are run.")  # fmt: skip
def cascade(reported: Reported) -> Finding:
    best, second = _row(reported, "CSCN"), _row(reported, "ACDNet")
    better = all(row["dsc"] < best["dsc"] for row in _networks(reported) if row["model"] in PARTS)
    n = reported["paper"]["patients"]
    limit = (best["dsc"] - second["dsc"]) * sqrt(n) / stats.t.isf(0.025, n - 1)
    parts = [row["model"] for row in _networks(reported) if row["model"] in PARTS]
    lines = (
        f"CSCN - ACDNet: DSC {best['dsc'] - second['dsc']:+z.3f}, ASSD {best['assd_mm'] - second['assd_mm']:+z.3f} mm.",
        f"Rows of its parts: {in_words(parts)}; over {n} pairs the difference is significant if the standard deviation "
        f"of the differences is below {limit:.3f}.",
    )
    known = "consistent" if len(parts) == len(PARTS) else "not stated"
    return Finding(known if better else "inconsistent", lines, {"limit": limit})
