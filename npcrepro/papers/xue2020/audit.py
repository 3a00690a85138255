"""Checks on Xue et al. 2020."""

from collections.abc import Mapping
from functools import cache
from math import e, log, nan, prod, sqrt

import numpy as np
from scipy import stats

from npcrepro import statistics
from npcrepro.base.wording import in_words, percent
from npcrepro.findings.audit.checks import Finding, Reported, check, half, jsc_of

TITLES = {"dsc": "DSC", "jsc": "JI", "asd_mm": "ASD (mm)", "hd_mm": "HD (mm)"}
GROUPS = {
    "sex": ("male", "female"),
    "T": ("T1", "T2", "T3", "T4"),
    "N": ("N0", "N1", "N2", "N3"),
    "treatment": ("induction", "no_induction"),
}
PEAK_FLOPS = 12e12  # Tesla P40, single precision, nominal
FAST_CONVOLUTION = 4  # what Winograd's algorithm with tiles of 4 x 4 saves on 3 x 3 kernels (Lavin and Gray 2016)
TRAINING_OVER_INFERENCE = 3  # forward and backward pass against forward pass, assumed
PLAUSIBLE_RATIOS = (2, 4)  # of the two; our limits
# Of the scores of two networks over 15 patients; our limit. On the published record of real CT, where networks hardly
# differ, the DSC of most trainings comes above it, so that a p that needs more than this is no proof of an error.
UNUSUAL_CORRELATION = 0.93
SLICES_OF_A_TUMOUR = (7, 21)  # of 3 mm; X12 makes it 18 to 21


def networks(reported: Reported) -> tuple[Mapping, Mapping]:
    """The rows of DeepLabv3+ and U-Net."""
    rows = {row["model"]: row for row in reported["tables"]["section2"]}
    return rows["DeepLabv3+"], rows["U-Net"]


def p_value(reported: Reported, metric: str) -> tuple[float, bool]:
    """Printed p, and whether it is only an upper bound."""
    printed = str(reported["tables"]["p_values"][metric])
    return float(printed.lstrip("< ")), printed.startswith("<")


def smallest_p(reported: Reported, metric: str, rounding: bool = False) -> float:
    """Smallest p of a paired t-test over the test patients; with ``rounding`` all printed digits are in its favour.

    The differences vary least if the scores of both networks rise together: their sd is then the difference of the two.
    """
    first, second = (row[metric] for row in networks(reported))
    size = half(reported, metric) if rounding else 0
    difference = abs(first["mean"] - second["mean"]) + 2 * size
    wider, narrower = sorted((first["sd"], second["sd"]), reverse=True)
    least = max(wider - size, narrower + size) - (narrower + size)
    n = reported["tables"]["p_values"]["test_patients"]
    if not least:
        return 0.0 if difference else 1.0
    return float(2 * stats.t.sf(difference / least * sqrt(n), n - 1))


def needed_correlation(reported: Reported, metric: str, n: int, rounding: bool = False) -> float:
    """Correlation of the two networks over ``n`` pairs at which a paired t-test gives the printed p.

    Above 1 no pairs can give it. With ``rounding``, the smallest one that the printed digits allow.
    """
    first, second = (row[metric] for row in networks(reported))
    p, _ = p_value(reported, metric)
    t = stats.t.isf(p / 2, n - 1)

    def correlation(size_of_mean: float, size_first: float, size_second: float) -> float:
        difference = abs(first["mean"] - second["mean"]) + size_of_mean
        spread = difference * sqrt(n) / t
        one, two = first["sd"] + size_first, second["sd"] + size_second
        return (one**2 + two**2 - spread**2) / (2 * one * two)

    if not rounding:
        return correlation(0, 0, 0)
    size = half(reported, metric)
    signs = (-size, size)
    return min(correlation(2 * size, one, two) for one in signs for two in signs)


@check("X01", where="Table 1",
    claim="Counts and percentages of 150 patients.",
    reading="As reported; the N stages add up to 99.9 by rounding.",
    consequence="The mix of stages can be used.")  # fmt: skip
def demographics(reported: Reported) -> Finding:
    counts, percent = reported["tables"]["table1_patients"], reported["tables"]["table1"]
    patients = reported["paper"]["patients"]
    sums = {group: sum(counts[name] for name in names) for group, names in GROUPS.items()}
    wrong = [name for name, count in counts.items() if abs(100 * count / patients - percent[name]) > 0.05 + 1e-9]
    lines = (
        f"Sums: {in_words([f'{group} {total}' for group, total in sums.items()])}.",
        f"Percentages that do not follow: {in_words(wrong)}.",
    )
    fits = set(sums.values()) == {patients} and not wrong
    return Finding("consistent" if fits else "inconsistent", lines, {"wrong": len(wrong)})


@check("X02", where="Section 1.1",
    claim="35.3 % of the locally advanced patients had induction chemotherapy.",
    reading="The share is of all patients.",
    consequence="None for the network.")  # fmt: skip
def induction(reported: Reported) -> Finding:
    counts, printed = reported["tables"]["table1_patients"], reported["text"]["induction_share_of_advanced"]
    advanced = counts["T3"] + counts["T4"]
    shares = [100 * counts["induction"] / n for n in (advanced, reported["paper"]["patients"])]
    lines = (f"{shares[0]:.1f} % of the {advanced} with T3 or T4, {shares[1]:.1f} % of all.",)
    return Finding("consistent" if abs(shares[0] - printed) <= 0.05 else "inconsistent", lines, {"share": shares[0]})


@check("X03", where="Section 2",
    claim="Mean JI and mean DSC are of the same masks.",
    consequence="DSC and JI are one measurement.")  # fmt: skip
def jaccard(reported: Reported) -> Finding:
    lines, fits = [], True
    for row in networks(reported):
        mean, sd, size = row["dsc"]["mean"], row["dsc"]["sd"], half(reported, "dsc")
        # J is a convex function of D, below it: the mean lies between these.
        low, high = jsc_of(mean - size), mean + size
        ratio = mean * (1 - mean) / sd**2 - 1
        model = jsc_of(stats.beta.ppf((np.arange(2000) + 0.5) / 2000, mean * ratio, (1 - mean) * ratio))
        fits &= low - size <= row["jsc"]["mean"] <= high + size
        lines.append(
            f"{row['model']}: JI between {jsc_of(mean):.3f} and {mean:.2f}; a beta distribution with this mean and "
            f"spread of the DSC gives {model.mean():.3f} ± {model.std():.3f}; reported {row['jsc']['mean']:.2f} ± "
            f"{row['jsc']['sd']:.2f}."
        )
    return Finding("consistent" if fits else "impossible", tuple(lines))


@check("X04", "asd_mm", where="Section 2",
    claim="ASD 3.4 ± 2.0 against 3.8 ± 3.3 mm, paired t-test of 15 patients, p = 0.014.",
    reading="The units of the test were slices.",
    consequence="The p is not used; patients are the units.")  # fmt: skip
@check("X05", "dsc", where="Section 2",
    claim="DSC 0.76 ± 0.11 against 0.73 ± 0.13, paired t-test of 15 patients, p < 0.001.",
    reading="Both networks fail on the same patients, to the same degree; or slices were the units.",
    consequence="Scores of single patients are published, so that anybody can test.")  # fmt: skip
@check("X06", "jsc", where="Section 2",
    claim="JI 0.63 ± 0.13 against 0.59 ± 0.14, paired t-test of 15 patients, p < 0.001.",
    reading="As for the DSC.",
    consequence="As for the DSC.")  # fmt: skip
def paired_test(reported: Reported, metric: str) -> Finding:
    n = reported["tables"]["p_values"]["test_patients"]
    p, bound = p_value(reported, metric)
    exact, favoured = (needed_correlation(reported, metric, n, rounding) for rounding in (False, True))
    least = [smallest_p(reported, metric, rounding) for rounding in (False, True)]
    sign = "<" if bound else "="
    favour = f"{least[1]:.2g}" if least[1] else "no lower bound"
    lines = (
        f"p {sign} {p:g} of {n} pairs needs a correlation of the two networks "
        f"{'above' if bound else 'of'} {exact:.3f} (at least {favoured:.3f} with all rounding in its favour).",
        f"The smallest p of these means and spreads is {least[0]:.2g} ({favour} with rounding in its favour).",
    )
    if favoured > 1:
        verdict = "impossible"
    else:
        verdict = "cannot tell" if favoured > UNUSUAL_CORRELATION else "consistent"
    return Finding(verdict, lines, {"correlation": exact, "favoured": favoured, "smallest_p": least[0]})


@check("X07", where="Section 2",
    claim="HD 10.9 ± 8.6 against 11.1 ± 7.5 mm, paired t-test, p = 0.745.",
    consequence="A difference was not found, which does not show that there is none.")  # fmt: skip
def p_of_hausdorff_distance(reported: Reported) -> Finding:
    found = paired_test(reported, "hd_mm")
    n, (p, _) = reported["tables"]["p_values"]["test_patients"], p_value(reported, "hd_mm")
    first, second = (row["hd_mm"]["mean"] for row in networks(reported))
    error = abs(first - second) / stats.t.isf(p / 2, n - 1)
    wide = error * stats.t.isf(0.025, n - 1)
    # Of a difference of two rounded means half a digit each is unknown.
    least, most = (wide * (1 + sign * 2 * half(reported, "hd_mm") / abs(first - second)) for sign in (-1, 1))
    line = f"If {n} patients were the pairs, the 95 % interval of the difference is ± {least:.1f} to {most:.1f} mm."
    return Finding(found.verdict, (*found.computed, line))


@check("X08", where="Section 2",
    claim="Four tests of the same pairs: p < 0.001, < 0.001, 0.014 and 0.745.",
    reading="Slices were the units of all four tests.",
    consequence="Every metric in 3D for each patient; slices only in a table of their own.")  # fmt: skip
def number_of_pairs(reported: Reported) -> Finding:
    def correlations(n: int) -> dict[str, float]:
        return {metric: needed_correlation(reported, metric, n) for metric in TITLES}

    lines = [
        f"{n} pairs: correlation {in_words([f'{TITLES[metric]} {r:.2f}' for metric, r in correlations(n).items()])}."
        for n in (100, 150, 200, 250, 300)
    ]
    patients = reported["tables"]["p_values"]["test_patients"]
    fewest = next(n for n in range(2, 100_000) if needed_correlation(reported, "asd_mm", n, rounding=True) <= 1)
    slices = [patients * each for each in SLICES_OF_A_TUMOUR]

    def ordinary_with(n: int) -> bool:
        # A p that is a bound gives the least correlation only, so that a small one says nothing.
        return all(
            r < UNUSUAL_CORRELATION and (p_value(reported, metric)[1] or r > 0.3)
            for metric, r in correlations(n).items()
        )

    # Correlations fall with the number of pairs, so that these numbers follow one another.
    ordinary = [n for n in range(*slices) if ordinary_with(n)]
    fits = "With none of these numbers are all four correlations ordinary."
    if ordinary:
        fits = f"All four p need only ordinary correlations if {ordinary[0]} to {ordinary[-1]} of them were tested."
    told = (
        f"With rounding in its favour the ASD needs {fewest} pairs or more; {patients} patients have some {slices[0]} "
        f"to {slices[1]} slices with tumour. {fits}"
    )
    by_patient = max(correlations(patients).values()) <= UNUSUAL_CORRELATION
    verdict = "consistent" if by_patient else "cannot tell" if ordinary else "inconsistent"
    told += f" So slices were probably tested, not {patients} patients." * (verdict == "cannot tell")
    numbers = {"fewest": fewest, "from": min(ordinary, default=nan), "to": max(ordinary, default=nan)}
    return Finding(verdict, (told, *lines), numbers)


@check("X09", where="Abstract, Section 2",
    claim="Mean DSC and JI rose by 3 % to 4 %.",
    reading="Percentage points.",
    consequence="None for what is built here.")  # fmt: skip
def gains(reported: Reported) -> Finding:
    first, second = networks(reported)
    points = {metric: 100 * (first[metric]["mean"] - second[metric]["mean"]) for metric in ("dsc", "jsc")}
    relative = {metric: points[metric] / second[metric]["mean"] for metric in points}
    shown = [f"{TITLES[metric]} {points[metric]:.0f} points ({relative[metric]:.1f} % relative)" for metric in points]
    fits = np.allclose(sorted(points.values()), reported["text"]["gain_points"])
    return Finding("consistent" if fits else "inconsistent", (f"{in_words(shown)}.",), points)


@check("X10", where="Section 1.3, abstract",
    claim="0.8 is the factor of the learning rate (body) or of the weight decay (English abstract).",
    reading="The body is right.",
    consequence="The rate x 0.8 after five checks without improvement; no weight decay.")  # fmt: skip
def decay(reported: Reported) -> Finding:
    text = reported["text"]
    shrink, drops = text["learning_rate"] * text["decay"], text["epochs"] // text["patience"]
    lines = (
        f"As weight decay the weights would shrink by {percent(shrink, 1)} in a step, to {100 / e:.0f} % in "
        f"{log(1 / e) / log(1 - shrink):.0f} steps.",
        f"As factor of the rate at most {drops} drops, to {text['learning_rate'] * text['decay'] ** drops:.1e}.",
    )
    same = len(set(text["decay_is"].values())) == 1
    return Finding("consistent" if same else "inconsistent", lines, {"drops": drops})


@cache
def _billion_macs(name: str) -> float:
    from npcrepro.models.layers import count_layers
    from npcrepro.protocol import registry

    paper = registry.load("xue2020")
    method, profile = paper.method(name), paper.profile("paper")
    macs = count_layers(lambda: method.build(profile.width), method.input_shape(profile))[2]
    assert macs is not None, "networks of 2-D convolutions can be counted"
    return macs / 1e9


@check("X11", where="Section 2, Discussion",
    claim="Separable convolutions lower the computation; 16 ms for a slice against 14 ms for U-Net.",
    reading="Multiplications fell and time rose: depthwise layers use a processor badly, or the U-Net was narrower.",
    consequence="The width of the U-Net is a parameter; time and multiply-accumulates are shown for both.")  # fmt: skip
def computation(reported: Reported) -> Finding:
    deeplab, unet = networks(reported)
    macs = {name: _billion_macs(name) for name in ("deeplabv3plus", "unet", "unet-32")}
    least_ms = 2e12 * macs["unet"] / PEAK_FLOPS
    ratio = deeplab["milliseconds_for_a_slice"] / unet["milliseconds_for_a_slice"]
    hours = reported["paper"]["training_hours"]
    lines = (
        f"A U-Net of 64 channels has {macs['unet']:.0f} billion multiply-accumulates at 512 x 512: at least "
        f"{least_ms:.0f} ms at the nominal {PEAK_FLOPS / 1e12:g} TFLOPS, {least_ms / FAST_CONVOLUTION:.0f} ms with the "
        f"fastest algorithm; reported {unet['milliseconds_for_a_slice']} ms. With 32 channels it has "
        f"{macs['unet-32']:.0f} billion.",
        f"DeepLabv3+ has {macs['deeplabv3plus']:.1f} billion, {macs['unet'] / macs['deeplabv3plus']:.0f} times fewer, "
        f"and takes {ratio:.2f} times as long for a slice and {hours['deeplabv3plus'] / hours['unet']:.2f} times for "
        "training.",
    )
    channels = reported["text"]["unet_channels"]
    verdict = "not stated"
    if channels is not None:
        needed_ms = least_ms / FAST_CONVOLUTION * (channels / 64) ** 2
        verdict = "consistent" if unet["milliseconds_for_a_slice"] >= needed_ms else "inconsistent"
    return Finding(verdict, lines, {"ratio": ratio})


@check("X12", where="Section 2",
    claim="Training takes 6.7 and 5 hours for 200 epochs of 120 patients.",
    reading="Only slices with tumour were used.",
    consequence="Which slices train is a parameter; testing is on all slices, which is harder.")  # fmt: skip
def training_slices(reported: Reported) -> Finding:
    text, hours, lines, passes = reported["text"], reported["paper"]["training_hours"], [], []
    for row, name in zip(networks(reported), ("deeplabv3plus", "unet"), strict=True):
        epoch_s = hours[name] * 3600 / text["epochs"]
        passes.append(1000 * epoch_s / row["milliseconds_for_a_slice"])
        slices = passes[-1] / TRAINING_OVER_INFERENCE
        each = slices / text["split"]["train"]
        lines.append(
            f"{row['model']}: {epoch_s:.1f} s an epoch are some {slices:.0f} slices, {each:.0f} of each patient or "
            f"{each * text['thickness_mm']['body']:.0f} mm."
        )
    stated = text["slices_of_training"]
    if stated is None:
        return Finding("not stated", tuple(lines), {"slices": each})
    low, high = PLAUSIBLE_RATIOS
    fits = all(low <= forward / stated <= high for forward in passes)
    return Finding("consistent" if fits else "inconsistent", tuple(lines), {"slices": each})


@check("X13", where="Abstract, Section 1.1",
    claim="Slices are 2.5 mm (English abstract) or 3 mm thick (body).",
    reading="The body, which names the scanner, is right.",
    consequence="The spacing is that of the image; distances depend on it, DSC does not.")  # fmt: skip
def thickness(reported: Reported) -> Finding:
    given = reported["text"]["thickness_mm"]
    plane = prod(reported["paper"]["spacing_mm"][1:])
    volumes = in_words([f"{plane * each:.2f}" for each in given.values()])
    line = f"They differ by a factor of {max(given.values()) / min(given.values()):.2f}; voxels have {volumes} mm³."
    return Finding("consistent" if len(set(given.values())) == 1 else "inconsistent", (line,))


@check("X14", where="Sections 1.3 and 2",
    claim="15 test patients of one random split rank two networks.",
    reading="The two networks are closely correlated over patients.",
    consequence="Cross-validation over all patients.")  # fmt: skip
def fifteen_patients(reported: Reported) -> Finding:
    first, second = (row["dsc"] for row in networks(reported))
    n, correlation, closer = reported["tables"]["p_values"]["test_patients"], 0.9, 0.95
    difference = first["mean"] - second["mean"]
    error = first["sd"] / sqrt(n) * stats.t.isf(0.025, n - 1)

    def at(correlation: float) -> tuple[float, float]:
        spread = sqrt(first["sd"] ** 2 + second["sd"] ** 2 - 2 * correlation * first["sd"] * second["sd"])
        return spread, 2 * stats.t.sf(difference / spread * sqrt(n), n - 1)

    (spread, p), (_, p_closer) = at(correlation), at(closer)
    needed = statistics.patients_needed(difference, spread)
    lines = (
        f"The 95 % interval of the mean DSC is {first['mean'] - error:.2f} to {first['mean'] + error:.2f}.",
        f"If the networks have a correlation of {correlation:g} over patients, the difference has p = {p:.3f}, and "
        f"{needed} patients would show it in 80 of 100 cohorts; with {closer:g} it has p = {p_closer:.3f}.",
    )
    return Finding(
        "cannot tell" if p > 0.05 else "consistent", lines, {"p": p, "needed": needed, "correlation": correlation}
    )
