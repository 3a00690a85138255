"""Tables of the book: records beside what the papers print. Data frames in, data frames out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import pandas as pd

from npcrepro import statistics
from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH, signed
from npcrepro.book.parts import together
from npcrepro.models.layers import count_layers
from npcrepro.protocol.method import Method, Paper, Profile
from npcrepro.runs.per_patient import over_seeds, side_by_side

# Columns of a table in smaller letters, and of one that is wider than a page in those as well.
MANY_COLUMNS, TOO_MANY_COLUMNS = 7, 13
# Two-sided sign flips of fewer patients have no p below 0.05 (2 of 2^5 patterns): such a p says how many there are.
TESTABLE, ALPHA = 6, 0.05
P = "p (sign-flip, Holm)"
UNSUPPORTED = "*"  # behind a p above `ALPHA` beside an interval that excludes zero


def show(frame: pd.DataFrame, caption: str = "", precision: int = 2):
    """A table for the page: no index, numbers at one precision, a dash for what is not a number.

    A short text stays on one line, what would be -0.0 is 0.0, a p is never 0, and a table of many columns has smaller
    letters. One of too many, with fewer rows, is turned: its first column is the head, as with many structures.
    """
    if len(frame.columns) >= TOO_MANY_COLUMNS and len(frame) < len(frame.columns):
        frame = frame.astype(object).set_index(frame.columns[0]).T.rename_axis(columns=None).reset_index(names="")

    def cell(value) -> str:
        if isinstance(value, bool) or not isinstance(value, Real):
            return together(str(value))
        if isinstance(value, Integral):
            return f"{value:,}"
        return f"{value if round(value, precision) else 0.0:,.{precision}f}"

    forms = {name: p_text if f"{name}".startswith("p (") and frame[name].dtype == float else cell for name in frame}
    style = frame.style.hide(axis="index").format(forms, na_rep=DASH)
    wide = " npc-wide-table" if len(frame.columns) >= MANY_COLUMNS else ""
    style = style.set_table_attributes(f'class="dataframe{wide}"')
    return style.set_caption(caption) if caption else style


def millilitres(volume: float) -> str:
    """A volume to three digits, for no contour is drawn more exactly; a dash where it is not known.

    Example:
        >>> [millilitres(volume) for volume in (1375.84, 28.59, 0.0631, np.nan)]
        ['1,376', '28.6', '0.063', '–']
    """
    if np.isnan(volume):
        return DASH
    digits = 0 if abs(volume) >= 100 else 1 if abs(volume) >= 10 else 2 if abs(volume) >= 0.1 else 3
    return f"{volume:,.{digits}f}"


def cohort(summary: pd.DataFrame) -> pd.DataFrame:
    """Medians of a cohort's structures over the cases that show them, with the range of the volume.

    Args:
        summary: from :func:`npcrepro.cohorts.summary.summarise_cohort`.
    """
    rows = []
    for (structure, channel), group in summary.groupby(["structure", "channel"], sort=False):
        shown = group[group.slices > 0]
        volume = shown.volume_ml
        known = f"{volume.median():.3g} ({volume.min():.3g} to {volume.max():.3g})" if volume.notna().any() else DASH
        slices = f"{shown.slices.median():g}" if len(shown) else DASH
        cases = f"{len(shown)} of {len(group)}"
        rows.append((structure, channel, cases, known, slices, shown.separability.median()))
    return pd.DataFrame(rows, columns=["structure", "channel", "cases", "volume (ml)", "slices", "separability"])


def layers(method: Method, profile: Profile) -> pd.DataFrame:
    """Layer table of a method's network at a profile's matrix and width."""
    _, rows, _ = count_layers(lambda: method.build(profile.width), method.input_shape(profile))
    if rows is None:
        raise InputError(f"{method.full_name}: its layers depend on what is found in an image, so there is no table")
    axes = "C x D x H x W" if len(rows[0].output) == 4 else "C x H x W"
    return pd.DataFrame(
        {
            "layer": [row.name for row in rows],
            "kind": [row.kind for row in rows],
            "kernel": [" x ".join(map(str, row.kernel)) for row in rows],
            "padding": [" x ".join(map(str, row.padding)) for row in rows],
            f"output ({axes})": [" x ".join(map(str, row.output)) for row in rows],
            "parameters": [row.parameters for row in rows],
            "MAC (millions)": [round(row.macs / 1e6, 2) for row in rows],
        }
    )


def slice_times(methods: Sequence[Method], profile: Profile, repeats: int = 5) -> pd.DataFrame:
    """Time of a forward pass of one slice on this processor, the median of ``repeats``, at the paper's widths and a
    profile's matrix."""
    from npcrepro.runs.timing import seconds_of_pass

    size = replace(profile, width=1.0)
    rows = []
    for method in methods:
        layer_rows = layers(method, size)
        macs = layer_rows["MAC (millions)"].sum() / 1000
        rows.append((method.title, layer_rows["parameters"].sum(), macs, 1000 * seconds_of_pass(method, size, repeats)))
    return pd.DataFrame(rows, columns=["network", "parameters", "MAC (billions)", "ms"])


def scores(patients: pd.DataFrame, paper: Paper, metrics: Mapping[str, str]) -> pd.DataFrame:
    """Mean, spread, interval and n of each method over patients.

    Args:
        patients: rows of one structure in one region; seeds are averaged within a patient first.
        metrics: metric to column title.

    Raises:
        ValueError: a patient stands there twice, for instance with two structures.
    """
    rows = []
    averaged = over_seeds(patients)
    if averaged.duplicated(["patient", "method"]).any():
        raise ValueError("a patient stands there twice with one method; select one structure and one region")
    for method in paper.methods:
        mine, one = averaged[averaged.method == method.name], patients[patients.method == method.name]
        if len(mine):
            row = {"method": method.title, "patients": len(mine), "seeds": one.seed.nunique()}
            row |= {title: statistics.summarise(mine[metric]) for metric, title in metrics.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def mean_and_interval(summary: statistics.Summary, n: int | None = None, sd: bool = False) -> str:
    """``0.85 (0.83 to 0.87)``, with ``sd`` ``0.85 ± 0.03 (0.83 to 0.87)``; a dash without values; n is added where it
    is not the one given.

    Example:
        >>> mean_and_interval(statistics.summarise([0.8, 0.8, 0.8]), n=4)
        '0.80 (0.80 to 0.80, n = 3)'
    """
    if not summary.n:
        return DASH
    known = [] if np.isnan(summary.low) else [summary.interval]
    known += [] if n in (None, summary.n) else [f"n = {summary.n}"]
    spread = f" ± {summary.sd:.2f}" if sd and not np.isnan(summary.sd) else ""
    return f"{summary.mean:.2f}{spread}" + (f" ({', '.join(known)})" if known else "")


def printed_cell(cell: dict | None) -> str:
    """A printed mean, sd and range of the YAML file in the same form; what is not printed is left out."""
    if not cell:
        return "n.a."
    low, high = cell.get("range_low"), cell.get("range_high")
    mean = "n.a." if "mean" not in cell else f"{cell['mean']:.2f}"
    spread = f" ± {cell['sd']:.2f}" if "sd" in cell else ""
    reach = "" if high is None else (f", {low:.2f} to {high:.2f}" if low is not None else f", up to {high:.2f}")
    return mean + spread + reach


def partners(patients: pd.DataFrame, paper: Paper) -> list[tuple[str, str]]:
    """Pairs of methods that the protocol names (`Paper.comparisons`) and that both have rows, in the paper's order.

    Unlike the pairs of `differences`, none with the proposed method for want of another partner.
    """
    there, stated = set(patients.method), paper.comparisons
    names = [method.name for method in paper.methods if method.name in there]
    return [(name, stated[name]) for name in names if stated.get(name) in there]


def differences(
    patients: pd.DataFrame,
    paper: Paper,
    metric: str,
    pairs: Sequence[tuple[str, str]] = (),
    printed: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Paired differences over patients between each method and the one that the paper's protocol compares it with.

    The p values are adjusted for the number of comparisons in the table (Holm). A comparison of fewer than `TESTABLE`
    patients is not tested. A p that does not support its interval is marked by `UNSUPPORTED`.

    Args:
        patients: rows of one structure; seeds are those that both of a pair have.
        pairs: two methods each, the first minus the second, in place of the protocol's. A pair is left out if one of
            its methods was not run.
        printed: title of a method to its printed mean; adds a column with the differences of these.
    """
    names = [method.name for method in paper.methods if method.name in set(patients.method)]
    proposed = paper.methods[0].name
    pairs = pairs or [(name, paper.comparisons.get(name, proposed)) for name in names if name != proposed]
    tests: dict[tuple[str, str], statistics.PairedTest] = {}
    for pair in pairs:
        if set(pair) <= set(names):
            wide = side_by_side(patients, pair, metric)
            tests[pair] = statistics.paired(*(wide[name] for name in pair))
    rows = []
    for (pair, test), p in zip(tests.items(), adjusted(list(tests.values())), strict=True):
        found = test.difference
        interval = DASH if np.isnan(found.low) else f"{signed(found.low)} to {signed(found.high)}"
        chance = p_text(p) + (UNSUPPORTED if side(found) and p > ALPHA else "")
        rows.append((minus(paper, *pair), found.n, signed(found.mean), interval, chance))
    frame = pd.DataFrame(rows, columns=["comparison", "patients", "mean difference", "95 % interval", P])
    if not printed:
        return frame
    theirs = [printed_difference(paper, pair, printed) for pair in tests]
    return frame.assign(reported=[DASH if value is None else f"{value:+z.3f}" for value in theirs])


def printed_difference(paper: Paper, pair: tuple[str, str], printed: Mapping[str, float]) -> float | None:
    """Difference of the printed means of two methods, by their titles; ``None`` where one is not printed."""
    first, second = (printed.get(paper.method(name).title) for name in pair)
    return None if first is None or second is None else first - second


def adjusted(tests: Sequence[statistics.PairedTest]) -> list[float]:
    """p of each comparison, adjusted for their number (Holm); ``nan`` for one of fewer than `TESTABLE` patients."""
    return statistics.holm([test.p if test.difference.n >= TESTABLE else np.nan for test in tests])


def p_text(p: float) -> str:
    """A p for a cell: three digits, ``< 0.001`` or a dash."""
    return DASH if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def side(difference: statistics.Summary) -> int:
    """1 where the interval of a difference lies above zero, -1 below, 0 where it holds zero or there is none.

    Example:
        >>> side(statistics.summarise([0.1, 0.2, 0.3])), side(statistics.summarise([-0.1, 0.0, 0.1]))
        (1, 0)
    """
    return int(difference.low > 0) - int(difference.high < 0)


def minus(paper: Paper, first: str, second: str) -> str:
    """How a comparison of two methods is named: the first minus the second, by their titles. What both say behind a
    comma is said once.

    Example:
        >>> from npcrepro.protocol import registry
        >>> paper = registry.load("luo2020")
        >>> minus(paper, "two-stage-tuned", "unet-tuned"), minus(paper, "two-stage", "unet-tuned")
        ('Proposed minus U-Net, both tuned', 'Proposed minus U-Net, tuned')
    """
    titles = [paper.method(name).title for name in (first, second)]
    (one, _, ending), (other, _, same) = (title.rpartition(", ") for title in titles)
    if one and other and ending == same:
        return f"{one} minus {other}, both {'with ' * (' ' in ending)}{ending}"
    return " minus ".join(titles)


def spread_of_means(patients: pd.DataFrame, metric: str) -> pd.Series:
    """Standard deviation over seeds of the cohort mean, for each method; ``nan`` with one seed."""
    return patients.groupby(["method", "seed"])[metric].mean().groupby("method").std()


def printed_rows(reported: dict) -> pd.DataFrame:
    """A table of the YAML file with its printed columns, one row for each patient."""
    return pd.DataFrame(reported["rows"], columns=reported["columns"])
