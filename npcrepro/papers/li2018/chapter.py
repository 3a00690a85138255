"""What only the chapter on Li et al. 2018 shows."""

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML

from npcrepro.base.wording import plural, span
from npcrepro.book.figures.style import GREEN, Picture, axes, narrow
from npcrepro.book.lesson import result
from npcrepro.book.lesson.result import Maps, Trained
from npcrepro.cohorts.structures import mask_of
from npcrepro.findings.audit.checks import Reported, half
from npcrepro.losses.targets import reduce_label
from npcrepro.metrics.overlap import Counts, count
from npcrepro.papers.li2018 import audit
from npcrepro.runs.published import Published
from npcrepro.sampling.samples import to_native_plane
from npcrepro.sampling.slices import SliceData

# Columns of Table 2 by the name of the metric, in the order of the paper.
TABLE_2 = {
    "predicted_ml": "V auto (ml)",
    "reference_ml": "V reference (ml)",
    "sensitivity": "PM",
    "corresponding_ratio": "CR",
    "dsc": "DSC",
    "precision": "Recall (= precision)",
    "jsc": "JSC",
}


def volumes(reported: Reported) -> Picture:
    """Li: ratio of the volumes against PM over recall, with what rounding leaves open, for each patient."""
    data = audit.patients(reported)
    x, y = data["percent_match"] / data["recall"], data["volume_auto"] / data["volume_readers"]
    x_size = _spread(data, reported, "percent_match", "recall", x)
    y_size = _spread(data, reported, "volume_auto", "volume_readers", y)
    figure, axis = axes(4.4)
    line = np.linspace(x.min() - 0.03, x.max() + 0.03, 50)
    axis.plot(line, line, color="0.35", linestyle="--", label="as the equations define it: equal ratios")
    axis.plot(line, 1 / line, color=GREEN, label="FP and FN exchanged: inverse ratios")
    axis.errorbar(x, y, x_size, y_size, fmt="o", color="black", ecolor="0.6", markersize=4, label=f"{len(x)} patients")
    axis.set(
        xlabel="percent match / recall, as reported (no unit)",
        ylabel="automatic / readers' volume (no unit)",
    )
    axis.legend(fontsize=8, frameon=False)
    inverse, defined = np.abs(y - 1 / x).max(), np.abs(y - x).max()
    alt = (
        f"Scatter plot of {len(x)} patients. The ratio of automatic to manual volume falls from {y.max():.2f} to "
        f"{y.min():.2f} while percent match over recall rises from {x.min():.2f} to {x.max():.2f}. The points follow "
        f"the inverse curve to within {inverse:.2f}; from the line of equal ratios they differ by up to {defined:.2f}."
    )
    return narrow(figure, alt)


def _spread(data, reported: Reported, top: str, bottom: str, ratio):
    """Half the width of what rounding leaves open of a ratio."""
    return ratio * (half(reported, top) / data[top] + half(reported, bottom) / data[bottom])


SCORES = {"Step 1": "score_quarter", "Step 2": "score_half", "Step 3": "score_full"}


def targets(data: SliceData, case: str, z: int) -> HTML:
    """A slice, and what each of the three steps is trained to give: the share of each pixel that is tumour."""
    image, label = data.batch([(case, z)])
    side = label.shape[-1]
    maps = {
        f"{step}: {side // factor} × {side // factor}": reduce_label(label, (side // factor,) * 2)[0, 0].numpy()
        for step, factor in zip(SCORES, (4, 2, 1), strict=True)
    }
    return HTML(result.side_by_side({"Image": image[0, 0].numpy()}, maps, what="share of tumour"))


def scores(trained: Trained, case: str, z: int) -> Maps:
    """The three scores of the network on a slice, as probabilities."""
    image, label = trained.data.batch([(case, z)])
    with torch.no_grad():
        found = {
            step: trained.network(trained.data.finish(image), output=output).sigmoid()[0, 0].numpy()
            for step, output in SCORES.items()
        }
    return image[0, 0].numpy(), label[0, 0].numpy().astype(bool), found


def through_matrix(data: SliceData) -> pd.DataFrame:
    """What is left of each reference that is brought to the matrix of the networks, as they are taught it, and back: a
    row for each case and structure with the counts of the returned mask against the reference."""
    rows = []
    for name in data.cohort.case_names:
        case = data.cohort.case(name)
        label = np.asarray(case.label)
        coarse = torch.from_numpy(np.array(data.arrays(name)[1])).float()
        returned = (to_native_plane(coarse, label.shape[1:]) >= 0.5).numpy()
        for number, structure in enumerate(data.structures):
            truth = mask_of(label, data.cohort.structures, structure)
            if truth.any():
                found = count(returned[:, number], truth)
                place = (name, case.patient, case.suspect, structure, data.matrix[0])
                rows.append((*place, found.tp, found.fp, found.fn))
    return pd.DataFrame(rows, columns=["case", "patient", "suspect", "structure", "matrix", "tp", "fp", "fn"])


def best_dsc(rows: pd.DataFrame) -> pd.Series:
    """DSC of each patient of `through_matrix`, pixels of all cases pooled; doubtful masks left out."""
    sums = rows[~rows.suspect].groupby("patient")[["tp", "fp", "fn"]].sum()
    return pd.Series({row.Index: Counts(row.tp, row.fp, row.fn, 0).dsc for row in sums.itertuples()}, dtype=float)


def ceiling_line(rows: pd.DataFrame) -> str:
    """What `best_dsc` says of a cohort at one matrix, in a sentence."""
    best = best_dsc(rows)
    if best.empty:
        return "No mask is free of doubt, so that nothing is said of what the matrix costs."
    side = rows.matrix.iloc[0]
    return (
        f"The reference itself, brought to {side} x {side} pixels as the networks are taught it and back, has a mean "
        f"DSC of {best.mean():.2f} over {plural(len(best), 'patient')} and one of {best.min():.2f} in the worst case; "
        "a network that learns it perfectly reaches about that."
    )


def literally(record: Published) -> str:
    """What became of seeds that were trained with the settings as reported, a line for a summed and for an averaged
    loss."""
    lines = [
        "We trained the reported settings with several seeds on slices of NPC that come further down (one fold, "
        f"profile `{record.runs[0]['profile']['name']}`):",
        "",
    ]
    for method, what in (("literal", "summed"), ("literal-mean", "averaged")):
        seeds = {run["seed"] for run in record.runs if run["method"] == method}
        diverged = {run["seed"] for run in record.runs if run["method"] == method and run["status"] == "diverged"}
        history = record.history[record.history.method == method]
        last = history[history.seed.isin(diverged)].groupby("seed")["update"].last().tolist()
        line = f"* Loss {what} over pixels, {plural(len(seeds), 'seed')}: {len(diverged)} diverged (infinite or NaN)"
        line += f" after {span(last)} updates" if last else ""
        of_others = (record.cases.method == method) & ~record.cases.seed.isin(diverged)
        found = record.cases[of_others & (record.cases.region == "all_slices")].dsc
        if len(found):
            line += f". The DSC of the others on the patient left out is at most {found.max():.2f}"
        lines += [f"{line}."] if seeds else []
    return "\n".join(lines)


def table_2(patients: pd.DataFrame) -> pd.DataFrame:
    """Patients of one method in the shape of the paper's Table 2; columns without any number are left out."""
    return patients[["patient", *TABLE_2]].dropna(axis=1, how="all").rename(columns={"patient": "Patient", **TABLE_2})
