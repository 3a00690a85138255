"""Checks on Li et al. 2018."""

from itertools import pairwise
from math import pi, sqrt

import numpy as np
from scipy import stats

from npcrepro.base.wording import in_words, percent
from npcrepro.findings.audit.checks import Finding, Reported, check, half, reach, within
from npcrepro.papers.li2018.tables import known, layers, patients

PEAK_FLOPS = 5e12  # GTX 980, single precision, nominal
GREY_LEVELS = 255
SHOWN = {"percent_match": "PM", "corresponding_ratio": "CR", "dsc": "DSC", "recall": "Recall", "jsc": "JSC"}
OVERLAPS = tuple(SHOWN)


def _ratio_of_equation_4(sensitivity, precision):
    """CR = (TP - 0.5 FP) / (TP + FN) in sensitivity and precision."""
    return sensitivity * (1.5 - 0.5 / precision)


def _harmonic(first, second):
    return 2 / (1 / first + 1 / second)


@check("L01", where="Table 2",
    claim="DSC and JSC describe the same masks: DSC = 2J / (1 + J) in every row.",
    consequence="The two columns are one measurement; a reproduction needs one of them.")  # fmt: skip
def dsc_and_jsc(reported: Reported) -> Finding:
    ((dsc, size),) = known(reported, "dsc")
    fits = within(dsc, size, *reach(lambda j: 2 * j / (1 + j), *known(reported, "jsc")))
    jsc = patients(reported)["jsc"]
    largest = np.abs(dsc - 2 * jsc / (1 + jsc)).max()
    line = f"{fits.sum()} of {len(fits)} rows agree within rounding; the largest difference is {largest:.4f}."
    return Finding("consistent" if fits.all() else "inconsistent", (line,), {"rows": fits.sum()})


@check("L02", where="Equations 3, 5 and 6, Table 2",
    claim="DSC is the harmonic mean of 'percent match' and 'recall', and JSC follows from the two.",
    consequence="The two columns are precision and sensitivity in some order; symmetric formulae cannot tell which."
)  # fmt: skip
def harmonic_mean(reported: Reported) -> Finding:
    pair = known(reported, "percent_match", "recall")
    formulae = {"dsc": _harmonic, "jsc": lambda a, b: 1 / (1 / a + 1 / b - 1)}
    fits = {name: within(*known(reported, name)[0], *reach(formula, *pair)) for name, formula in formulae.items()}
    line = "; ".join(f"{SHOWN[name]} fits in {rows.sum()} of {len(rows)} rows" for name, rows in fits.items())
    return Finding("consistent" if all(rows.all() for rows in fits.values()) else "inconsistent", (f"{line}.",))


@check("L03", where="Equation 4, Table 2",
    claim="CR = (TP - 0.5 FP) / (TP + FN).",
    reading="The paper's own equations 1 and 5, in which 'recall' is what others call precision.",
    consequence="Within the columns the paper used its own equations: PM is sensitivity, 'recall' is precision."
)  # fmt: skip
def corresponding_ratio(reported: Reported) -> Finding:
    ((printed, size),) = known(reported, "corresponding_ratio")
    own = within(printed, size, *reach(_ratio_of_equation_4, *known(reported, "percent_match", "recall")))
    usual = within(printed, size, *reach(_ratio_of_equation_4, *known(reported, "recall", "percent_match")))
    lines = (
        f"With PM as sensitivity and 'recall' as precision, {own.sum()} of {len(own)} rows agree.",
        f"With the usual meaning of recall, {usual.sum()} of {len(usual)} do.",
    )
    numbers = {"own": own.sum(), "usual": usual.sum()}
    return Finding("consistent" if own.all() else "inconsistent", lines, numbers)


@check("L04", where="Table 2 and its equations",
    claim="Volumes and overlaps are of the same masks: V(automatic) / V(readers) = PM / 'recall'.",
    reading="FP and FN were exchanged in the evaluation, or the two columns of volumes in the table.",
    consequence="If FP and FN were exchanged, the reported PM is precision and the reported 'recall' the sensitivity."
)  # fmt: skip
def volumes(reported: Reported) -> Finding:
    volume = reach(lambda auto, readers: auto / readers, *known(reported, "volume_auto", "volume_readers"))
    defined = reach(lambda match, recall: match / recall, *known(reported, "percent_match", "recall"))
    inverse = reach(lambda match, recall: recall / match, *known(reported, "percent_match", "recall"))
    meets = [(volume[0] <= ratio[1]) & (ratio[0] <= volume[1]) for ratio in (defined, inverse)]
    data = patients(reported)
    least_overlap = reach(lambda match, readers: match * readers, *known(reported, "percent_match", "volume_readers"))
    more = least_overlap[0] > data["volume_auto"] + half(reported, "volume_auto")
    names = [int(name) for name in data["patient"][more]]
    correlation = np.corrcoef(data["volume_auto"] / data["volume_readers"], data["percent_match"] / data["recall"])
    lines = [
        f"As defined, {meets[0].sum()} of {len(more)} rows agree; the other way round, {meets[1].sum()} do.",
        f"The two ratios have a correlation of {correlation[0, 1]:.3f}.",
        f"In patients {in_words(names)} the overlap would be larger than the automatic volume, even after rounding.",
    ]
    if names:
        row = int(np.flatnonzero(more)[-1])
        match, auto, readers = (data[name][row] for name in ("percent_match", "volume_auto", "volume_readers"))
        lines.append(
            f"Patient {names[-1]}: {match:.2f} of {readers:.1f} cm³ is {match * readers:.2f} cm³ of overlap within "
            f"{auto:.1f} cm³."
        )
    verdict = "impossible" if names else "consistent" if meets[0].all() else "inconsistent"
    return Finding(verdict, tuple(lines), {"defined": meets[0].sum(), "inverse": meets[1].sum(), "larger": len(names)})


@check("L05", where="Equations 1, 2 and 5",
    claim="Recall is TP / (TP + FP) and precision is TP / (TP + FN); PM has the formula of precision.",
    reading="One slip explains the exchanged names and the volumes of L04: FP and FN were exchanged.",
    consequence="Use the standard names, show PM and CR under both readings, and compare DSC and JSC alone."
)  # fmt: skip
def names_of_recall_and_precision(reported: Reported) -> Finding:
    data, equations = patients(reported), reported["text"]["equations"]
    exchanged = _ratio_of_equation_4(data["recall"], data["percent_match"])
    larger = int((data["volume_auto"] > data["volume_readers"]).sum())
    smaller = int((data["volume_auto"] < data["volume_readers"]).sum())
    match = data["recall"]
    lines = (
        f"Read so, the percent match is {match.mean():.3f} ± {match.std(ddof=1):.3f} and CR {exchanged.mean():.3f} ± "
        f"{exchanged.std(ddof=1):.3f}; DSC and JSC stay.",
        f"The automatic volume is the larger one in {larger} patients and the smaller one in {smaller}; the sums are "
        f"{data['volume_auto'].sum():.1f} and {data['volume_readers'].sum():.1f} cm³.",
    )
    usual = equations["recall"] == "TP/(TP+FN)" and equations["precision"] == "TP/(TP+FP)"
    return Finding("consistent" if usual else "inconsistent", lines, {"percent_match": match.mean()})


@check("L06", where="Table 2, last row",
    claim="The last row holds mean and standard deviation of the five columns.",
    reading="Means were taken before the cells were rounded; the spread is the standard deviation with n - 1.",
    consequence="Report the standard deviation with n - 1; the text says variance where it means it.")  # fmt: skip
def means(reported: Reported) -> Finding:
    data, table = patients(reported), reported["tables"]["table2"]
    lines, verdicts = [], set()
    for name in OVERLAPS:
        mean, sd, size = data[name].mean(), data[name].std(ddof=1), half(reported, name)
        # Rounding of each cell is uniform, so that their mean moves little.
        movable = 3 * 2 * size / sqrt(12 * len(data[name]))
        differences = abs(mean - table["printed_mean"][name]), abs(sd - table["printed_sd"][name])
        exact = max(differences) <= size
        verdicts.add("consistent" if exact else "rounding" if max(differences) <= size + movable else "inconsistent")
        lines.append(
            f"{SHOWN[name]} {mean:.4f} ± {sd:.4f}, reported {table['printed_mean'][name]:.2f} ± "
            f"{table['printed_sd'][name]:.2f}."
        )
    verdict = next(v for v in ("inconsistent", "rounding", "consistent") if v in verdicts)
    return Finding(verdict, tuple(lines))


@check("L07", where="Section 3",
    claim="PM runs from 0.71 to 0.92, CR from 0.83 to 0.96 and DSC from 0.80 to 0.95.",
    reading="The ranges of PM and CR changed places in the text; Tables 2 and 3 have them right.",
    consequence="Take the ranges from the tables.")  # fmt: skip
def ranges(reported: Reported) -> Finding:
    data = patients(reported)
    found = {name: (data[name].min(), data[name].max()) for name in reported["text"]["ranges"]}
    wrong = [name for name, ends in reported["text"]["ranges"].items() if not np.allclose(ends, found[name])]
    lines = tuple(f"{SHOWN[name]} of Table 2: {low:.2f} to {high:.2f}." for name, (low, high) in found.items())
    return Finding("inconsistent" if wrong else "consistent", lines, {"wrong": len(wrong)})


@check("L08", "figure2", where="Figure 2",
    claim="DSC 0.941, CR 0.915 and PM 0.950 belong to one image.",
    consequence="The figures use the metrics of the table.")  # fmt: skip
@check("L09", "figure3", where="Figure 3",
    claim="DSC 0.797, CR 0.731 and PM 0.937 belong to one image.",
    reading="As reported, for a single slice.",
    consequence="No patient of Table 2 has these values: figures are of slices, the table of patients.")  # fmt: skip
def figure(reported: Reported, name: str) -> Finding:
    values, size, data = reported["tables"][name], half(reported, "figures"), patients(reported)
    low, high = reach(
        lambda dsc, match: _ratio_of_equation_4(match, 1 / (2 / dsc - 1 / match)),
        *((values[column], size) for column in ("dsc", "percent_match")),
    )
    fits = within(values["corresponding_ratio"], size, low, high)
    same = np.all([np.abs(data[name] - value) < half(reported, name) + 1e-9 for name, value in values.items()], axis=0)
    lines = (
        f"DSC and PM leave CR between {low:.4f} and {high:.4f}; reported {values['corresponding_ratio']:.3f}.",
        f"Patients of Table 2 with these three values: {in_words(int(p) for p in data['patient'][same])}.",
    )
    return Finding("consistent" if fits else "inconsistent", lines, {"patients": same.sum()})


@check("L10", where="Section 2.1",
    claim="11 x 33 x 2 = 726 images of each slice, 63,126 in all.",
    reading="Two digits of the total were exchanged.",
    consequence="726 images of each slice; the product does not say whether originals are among them.")  # fmt: skip
def augmentation(reported: Reported) -> Finding:
    text, slices = reported["text"], reported["paper"]["slices"]
    each = text["rotations"] * text["contrasts"] * text["noises"]
    total = slices * text["images_per_slice"]
    fold = (slices - slices // reported["paper"]["patients"]) * text["images_per_slice"]
    lines = (
        f"The product is {each}; {slices} x {text['images_per_slice']} = {total:,}, reported {text['images']:,}.",
        f"A fold without one patient has {fold:,}.",
    )
    fits = each == text["images_per_slice"] and total == text["images"]
    return Finding("consistent" if fits else "inconsistent", lines, {"total": total, "fold": fold})


@check("L11", where="Text, Table 2",
    claim="87 slices show the tumours whose volumes are in Table 2.",
    reading="More than 87 slices were segmented, or one factor, such as the thickness of a slice, is wrong in all "
    "volumes; by L04 the volumes belong to the masks that were scored.",
    consequence="The number of slices of a patient is a parameter: all with tumour, or three.")  # fmt: skip
def slices_and_volumes(reported: Reported) -> Finding:
    paper, volume = reported["paper"], patients(reported)["volume_readers"]
    thickness_cm = paper["spacing_mm"][0] / 10
    radius = np.cbrt(3 * volume / (4 * pi))
    spanned = (2 * radius / thickness_cm).sum()
    area = volume.sum() / (paper["slices"] * thickness_cm)
    section = pi * np.cbrt(3 * volume.mean() / (4 * pi)) ** 2
    width_mm = 20 * sqrt(volume.max() / (3 * thickness_cm) / pi)
    lines = (
        f"Balls of these volumes span {spanned:.0f} slices of {paper['spacing_mm'][0]:g} mm, not {paper['slices']}.",
        f"On {paper['slices']} slices the mean area would be {area:.1f} cm²; the largest section of a ball of the mean "
        f"volume has {section:.1f} cm².",
        f"On three slices the largest tumour would be {width_mm:.0f} mm wide and {30 * thickness_cm:.0f} mm high.",
    )
    return Finding("inconsistent" if area > section else "consistent", lines, {"spanned": spanned, "area_cm2": area})


@check("L12", where="Section 2.1",
    claim="33 contrasts and 2 noise copies add different images, which are then normalised.",
    reading="The contrast changes clip or bend the intensities, which a z-score does not undo.",
    consequence="The effective augmentation may be near 11 rotations; contrast and noise are parameters.")  # fmt: skip
def normalised_augmentation(reported: Reported) -> Finding:
    text = reported["text"]
    noise = sqrt(text["noise_power"]) * GREY_LEVELS
    image = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    low, high = np.quantile(image, [0.01, 0.99])

    def moved(changed):
        return np.abs(stats.zscore(changed) - stats.zscore(image))

    clipped = (moved(image.clip(low, high)) > 0.25).mean()
    lines = (
        f"The noise has {noise:.4f} grey levels of {GREY_LEVELS + 1}: rounded to whole levels, nothing is left of it.",
        f"A z-score undoes a linear change of contrast (largest difference {moved(3 * image + 1).max():.1e}); after a "
        f"stretch that clips 1 % at both ends, {percent(clipped, 1)} of normally distributed voxels differ by more "
        "than 0.25 standard deviations.",
    )
    # Noise below half a grey level is lost only if the images have whole levels, which is not printed either.
    seen = "consistent" if noise >= 0.5 else "cannot tell"
    return Finding("not stated" if text["contrast_settings"] is None else seen, lines, {"noise": noise})


@check("L13", where="Table 1",
    claim="Every output size follows from kernel, stride and padding.",
    consequence="Table 1 can be built as it stands; the skips are Relu2 and Relu1, by their channels.")  # fmt: skip
def layer_table(reported: Reported) -> Finding:
    rows = layers(reported)
    fits, weights = sum(row["fits"] for row in rows), sum(row["parameters"] for row in rows)
    macs = sum(row["macs"] for row in rows)
    line = f"{fits} of {len(rows)} layers agree; {weights:,} parameters, {macs / 1e9:.2f} billion multiply-accumulates."
    return Finding("consistent" if fits == len(rows) else "inconsistent", (line,), {"parameters": weights})


@check("L14", where="Section 2.3",
    claim="Kernels start from a normal distribution of standard deviation 1; the learning rate is 1e-7.",
    reading="The loss was averaged over pixels, another initialisation was used than the one stated, or the inputs "
    "were very small.",
    consequence="He initialisation with a rate of its own; the reported pair is trained with both losses.")  # fmt: skip
def initial_weights(reported: Reported) -> Finding:
    text, square, before_relu = reported["text"], 1.0, {}
    for row in layers(reported):
        if row["layer"] == "Deconv1":
            break
        if row["kind"] == "convolution":
            spread = text["initial_sd"] * sqrt(row["kernel"] ** 2 * row["inputs"] * square)
            # Half of what enters a ReLU is cut to 0.
            before_relu[row["layer"]], activation, square = spread, sqrt(square), spread**2 / 2
            pixels = row["side"] ** 2
    # A cross-entropy has errors of at most 1 in each pixel. The paper does not say whether its loss is a sum.
    averaged = text["learning_rate"] * activation
    summed = averaged * pixels
    spreads = in_words([f"{name} {value:.3g}" for name, value in before_relu.items()])
    lines = (
        f"With a cross-entropy summed over the image, the first update could change a weight of the score by "
        f"up to {summed:.3g}, with an averaged one by {averaged:.2g}; weights start with an sd of "
        f"{text['initial_sd']:g}.",
        f"For an input of variance 1 the standard deviation before each ReLU is: {spreads}.",
    )
    too_large = [step > text["initial_sd"] for step in (averaged, summed)]
    verdict = "inconsistent" if all(too_large) else "cannot tell" if any(too_large) else "consistent"
    return Finding(verdict, lines, {"summed": summed, "averaged": averaged})


@check("L15", where="Section 2.3",
    claim="A complete training took 52 hours on one GTX 980, with leave-one-out over 29 patients.",
    reading="52 hours are one fold.",
    consequence="A fixed number of updates, not of hours.")  # fmt: skip
def training_time(reported: Reported) -> Finding:
    paper = reported["paper"]
    # Forward and backward pass cost three times a forward pass; a multiply-accumulate is two operations.
    operations = 6 * sum(row["macs"] for row in layers(reported))
    images = paper["training_hours"] * 3600 * PEAK_FLOPS / operations
    in_a_fold = augmentation(reported).numbers["fold"]
    passes = {"one fold": images / in_a_fold, "all folds": images / in_a_fold / paper["patients"]}
    days = paper["patients"] * paper["training_hours"] / 24
    lines = (
        f"If it is one fold, all take {days:.1f} days.",
        f"At the nominal {PEAK_FLOPS / 1e12:g} TFLOPS the hours hold at most {passes['one fold']:.0f} passes over the "
        f"images of one fold, or {passes['all folds']:.0f} in each of all folds: both are possible.",
    )
    possible = [name for name, number in passes.items() if number >= 1]
    return Finding({0: "impossible", 1: "consistent", 2: "cannot tell"}[len(possible)], lines, {"days": days})


@check("L16", where="Abstract, Table 3",
    claim="All three means are better than those of similar studies.",
    reading="The own means are above those of Table 3, though not above the best of others that the discussion gives.",
    consequence="No superiority is carried over: other patients, no test, and PM depends on L04.")  # fmt: skip
def other_studies(reported: Reported) -> Finding:
    own, *others = reported["tables"]["table3"]
    lines, better, missing = [], True, 0
    for name in ("dsc", "corresponding_ratio", "percent_match"):
        means = {row["study"]: row[name]["mean"] for row in others if row[name] and "mean" in row[name]}
        missing += len(others) - len(means)
        best = reported["text"]["others_best"].get(name)
        better &= all(own[name]["mean"] > mean for mean in (*means.values(), *([best] if best else [])))
        shown = in_words([f"{mean:.2f}" for mean in means.values()])
        discussed = f", and the discussion gives their best as {best:.2f}" if best else ""
        lines.append(f"{SHOWN[name]} {own[name]['mean']:.2f}; Table 3 has {shown} of others{discussed}.")
    lines.append(f"{missing} of {3 * len(others)} cells of the others have no mean, and no image is shared.")
    exchanged = patients(reported)["recall"].mean()
    lines.append(f"With FP and FN exchanged PM would be {exchanged:.2f}.")
    # Means of other patients cannot show superiority, however they lie.
    fits = "consistent" if reported["text"]["studies_share_patients"] else "cannot tell"
    return Finding(fits if better else "inconsistent", tuple(lines), {"missing": missing})


@check("L17", where="Text, Figure 1",
    claim="The feature phase has two blocks with pooling and four without (text), or three (caption).",
    reading="The caption does not count the layer that makes the score.",
    consequence="Follow Table 1 and the text.")  # fmt: skip
def blocks(reported: Reported) -> Finding:
    rows = layers(reported)
    phase = rows[: [row["layer"] for row in rows].index("Deconv1")]
    after_pooling = sum(a["kind"] == "pooling" and b["kind"] == "convolution" for a, b in pairwise(phase))
    convolutions = sum(row["kind"] == "convolution" for row in phase)
    found = {"with_pooling": after_pooling, "without_pooling": convolutions - after_pooling}
    text = reported["text"]
    line = f"Table 1 has {found['with_pooling']} with pooling and {found['without_pooling']} without."
    same = text["blocks_in_text"] == text["blocks_in_caption"] == found
    return Finding("consistent" if same else "inconsistent", (line,), found)
