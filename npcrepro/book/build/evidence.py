"""Tables of pages that are made of published runs: what was trained, on whom, and by what."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH, percent, plural, span
from npcrepro.protocol import registry
from npcrepro.runs import per_patient
from npcrepro.runs.published import PLACE, Published, published_folders, read_published
from npcrepro.runs.sweep import RESOURCES

# What each of them shows; what it is part of, and what was done to it.
COHORTS = {
    "OpenKBP_OAR": (
        "planning CT of cancers of the head and neck",
        " from OpenKBP {cite:p}`babier2021`, MIT; of its 128 x 128 x 128 coarse voxels of dose planning, "
        "112 x 72 x 72; all five organs are contoured in each case, by whom is not stated; some scans are cut off at "
        "an end",
    ),
    "OpenKBP_PTV70": ("planning target volumes of 70 Gy", " on the scans of `OpenKBP_OAR`"),
    "IBSI_STS": (
        "soft-tissue sarcomas",
        " from the validation set of the Image Biomarker Standardisation Initiative {cite:p}`vallieres2015`, "
        "CC BY 3.0; T1 MRI, CT and PET on the grid of the T1; outlined on fat-suppressed T2, which is not among them, "
        "and carried over by registration",
    ),
    "NPC_T2Slices": (
        "single T2 slices of NPC",
        " {cite:p}`li2025`, CC BY 4.0, as a public repository of code shows them; size of voxels unknown",
    ),
}

# What of a run's provenance the third table shows.
MADE_BY = {
    "processor": lambda run: run.get("processor", DASH),
    "threads": lambda run: str(run.get("threads", DASH)),
    "precision": lambda run: run.get("precision", DASH),
    "torch": lambda run: run.get("versions", {}).get("torch", DASH),
    "Python": lambda run: run.get("python", DASH),
    "commit": lambda run: _commit(run.get("git_commit")),
    "made": lambda run: run["finished"][:10].replace("-", "\N{NON-BREAKING HYPHEN}"),
}


def published_runs(root: Path) -> str:
    """Every published run, in three tables: on whom and at what size (a row for each record), what was trained and how
    long (a row for each method), and by what machine and code (a row for each record)."""
    records = list(map(read_published, published_folders(root / "book" / "results")))
    methods = [row for record in records for row in _methods_of(record)]
    machines = [
        {"record": f"`{record.folder.name}`"} | {name: _all(record.runs, of) for name, of in MADE_BY.items()}
        for record in records
    ]
    return "\n\n".join([markdown(list(map(_size_of, records))), markdown(methods), markdown(machines)])


def _commit(commit: str | None) -> str:
    """The commit that a run names, and whether the code had changes beside it."""
    if not commit:
        return DASH
    return f"`{commit[:7]}`{' (changed)' * commit.endswith('-dirty')}"


def _size_of(record: Published) -> dict[str, object]:
    first, folds = record.runs[0], record.folds.values()
    return {
        "record": f"`{record.folder.name}`",
        "cohort": first["cohort"],
        "profile": first["profile"]["name"],
        "input": _all(record.runs, lambda run: " x ".join(map(str, run["profile"].get("matrix", ()))) or DASH),
        "width": _all(record.runs, lambda run: str(run["profile"].get("width", DASH))),
        "folds": len({run["fold"] for run in record.runs}),
        **{name: span([len(fold[name]) for fold in folds]) for name in ("train", "validation", "test")},
    }


def _methods_of(record: Published) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    whole = (record.cases.region == "all_slices").any()
    dsc = _dsc_of(record.cases).groupby("method").mean() if whole else {}
    for method in dict.fromkeys(run["method"] for run in record.runs):
        runs = [run for run in record.runs if run["method"] == method]
        history = record.history[record.history.method == method]
        rows.append(
            {
                "record": f"`{record.folder.name}`",
                "method": f"`{method}`",
                "updates": _updates(record.methods.get(method, {}), history),
                "best check": _best_checks(history),
                "n": record.cases[record.cases.method == method].patient.nunique(),
                "seeds": len({run["seed"] for run in runs}),
                "mean DSC": f"{dsc[method]:.3f}" if method in dsc else DASH,
                "minutes a run": " / ".join(f"{each:.1f}" for each in _minutes(runs, "all").values()) or DASH,
                "device": _all(runs, lambda run: run.get("device", DASH)),
            }
        )
    return rows


def _minutes(runs: Sequence[dict], part: str) -> dict[str, float]:
    """Mean minutes of a part of runs, by device in the order of the runs."""
    times = defaultdict(list)
    for run in runs:
        if "seconds" in run:
            times[run.get("device", DASH)].append(run["seconds"][part] / 60)
    return {device: sum(each) / len(each) for device, each in times.items()}


def costs(root: Path) -> str:
    """Minutes to train and seconds to predict on a CPU, paper by paper, from the record that stands for it, and memory
    by profile: a table and a sentence."""
    rows = []
    for key, entry in registry.PAPERS.items():
        if "lessons" not in registry.reported(key):
            continue
        record = read_published(root / "book" / "results" / registry.reported(key)["lessons"]["record"])
        proposed, runs = registry.load(key).methods[0], defaultdict(list)
        for run in record.runs:
            runs[run["method"]].append(run)
        minutes = {name: _minutes(each, "train").get("cpu", 0.0) for name, each in runs.items()}
        trained = [value for value in minutes.values() if value]
        known = 60 * _minutes(runs[proposed.name], "predict")["cpu"]
        cases = record.cases[record.cases.method == proposed.name].groupby(["fold", "seed"]).case.nunique().mean()
        size = record.runs[0]["profile"]
        rows.append(
            {
                "paper": entry.short,
                "cohort": record.runs[0]["cohort"],
                "updates": f"{size['updates']:,}",
                "minutes, proposed method": f"{minutes[proposed.name]:.1f}",
                "minutes, fastest to slowest method": f"{min(trained):.1f} to {max(trained):.1f}",
                "seconds to predict a case": f"{known / cases:.2g}",
                "the paper's own": registry.reported(key)["compute"],
            }
        )
    memory = ", ".join(f"{mib / 1000:g} GB at `{name}`" for name, (mib, _) in RESOURCES.items())
    return f"{markdown(rows)}\n\nMemory that is set aside for one run: {memory}."


def gpu_hours(root: Path) -> str:
    """What an update at profile ``paper`` took on a GPU and the hours of all of them, as a table, and a sentence on the
    trainings whose whole loop was timed (``book/results/gpu/hours.csv``)."""
    frame = pd.read_csv(root / "book" / "results" / "gpu" / "hours.csv")
    rows = [
        {
            "method": f"`{each.method}`",
            "ms an update": f"{each.milliseconds:.1f}",
            "updates": f"{each.updates:,}",
            "hours of one fold": f"{each.milliseconds * each.updates / 3.6e6:.2f}",
            "GPU memory": f"{each.memory_gb:.1f} GB",
        }
        for each in frame.itertuples()
    ]
    timed = frame.dropna(subset="loop_minutes")
    updates_only = timed.milliseconds * timed.updates / 6e4
    told = [
        f"`{method}` {whole:.1f} minutes, {alone:.1f} of them for the updates"
        for method, whole, alone in zip(timed.method, timed.loop_minutes, updates_only, strict=True)
    ]
    where = f"One {frame.device[0]}, {frame.precision[0]}, torch {frame.torch[0]}"
    return f"{markdown(rows)}\n\n{where}. With reading, augmentation and checks: {'; '.join(told)}."


def _updates(method: Mapping, history) -> str:
    """The least and the most that a run of a method made, from its learning curve; 0 where a method trains nothing."""
    if not method.get("stages", True):
        return "0"
    made = history.groupby(["fold", "seed", "stage"])["update"].max().groupby(["fold", "seed"]).sum()
    return span(list(made))


def _all(runs: Sequence[dict], of: Callable[[dict], str]) -> str:
    return ", ".join(dict.fromkeys(map(of, runs)))


def repeated(root: Path) -> str:
    """Published runs that were made again somewhere else (``book/results/repeated/WHY/RECORD``), as a table: a row for
    each method and machine, with how far the means of a run and of its repetition lie apart, and beside it how far
    those of two published seeds on the same fold do; doubtful labels are left out. A sentence counts the rows in
    which these two are alike.

    Raises:
        InputError: no such runs, or one that was not published in the first place.
    """
    results, pairs = root / "book" / "results", defaultdict(list)
    seeds: dict[tuple[str, str, int], list[float]] = {}
    for path in sorted((results / "repeated").glob("*/*/runs.json")):
        first, again = read_published(results / path.parent.name), read_published(path.parent)
        for run in again.runs:
            before = next((other for other in first.runs if all(other[key] == run[key] for key in PLACE)), None)
            if before is None:
                told = ", ".join(f"{key} {run[key]}" for key in PLACE)
                raise InputError(f"{path}: {told} is no run of {first.folder}, which it should repeat")
            dsc, other = (_dsc_of(_rows_of(*each)) for each in ((first, before), (again, run)))
            place = first.folder.name, run["method"], _machine(before), _machine(run)
            pairs[place].append((run["fold"], dsc.mean(), other.mean(), (other - dsc).abs().max()))
            where = first.folder.name, run["method"], run["fold"]
            if where not in seeds:
                alike = [each for each in first.runs if (each["method"], each["fold"]) == where[1:]]
                seeds[where] = [_dsc_of(_rows_of(first, each)).mean() for each in alike]
    if not pairs:
        raise InputError(f"{results / 'repeated'} holds no runs that were made again")
    rows, ratios = [], []
    for (record, method, then, now), each in pairs.items():
        frame = pd.DataFrame(each, columns=["fold", "before", "again", "patient"])
        apart = (frame.again - frame.before).abs()
        folds = [seeds[record, method, fold] for fold in frame.fold.unique()]
        draws = [abs(one - other) for means in folds for one, other in combinations(means, 2)]
        ratios += [apart.mean() * len(draws) / sum(draws)] if draws else []
        rows.append(
            {
                "record": f"`{record}`",
                "method": f"`{method}`",
                "runs": len(frame),
                "published on": then,
                "repeated on": now,
                "mean DSC": f"{frame.before.mean():.3f}",
                "again": f"{frame.again.mean():.3f}",
                "the same seed apart, mean": f"{apart.mean():.3f}",
                "at most": f"{apart.max():.3f}",
                "two seeds apart, mean": f"{sum(draws) / len(draws):.3f}" if draws else DASH,
                "one patient, at most": f"{frame.patient.max():.3f}",
            }
        )
    alike = sum(0.5 <= ratio <= 2 for ratio in ratios)
    return (
        f"{markdown(rows)}\n\nIn {alike} of {plural(len(ratios), 'row')} the two distances are within a factor of two."
    )


def _machine(run: Mapping) -> str:
    return f"{run['processor'] if run['device'] == 'cpu' else run['device']}, {run['precision']}"


def _rows_of(record: Published, run: Mapping):
    cases = record.cases
    return cases[(cases[PLACE] == [run[column] for column in PLACE]).all(axis=1)]


def _dsc_of(cases):
    """DSC of each method and patient, mean over structures and then over seeds; doubtful labels are left out."""
    patients = per_patient.by_patient(cases[(cases.region == "all_slices") & ~cases.suspect])
    return per_patient.over_structures(patients, ["dsc"]).groupby(["method", "patient"]).dsc.mean()


def _best_checks(history) -> str:
    """Where in its last stage a training did best on its validation patients; the median over the trainings."""
    shares = []
    history = history[["fold", "seed", "stage", "update", "validation_dsc"]].dropna()
    for _, checks in history.groupby(["fold", "seed"]):
        last = checks[checks.stage == checks.stage.iloc[-1]].set_index("update").validation_dsc
        shares.append(last.idxmax() / last.index.max())
    return percent(median(shares)) if shares else DASH


def cohorts(root: Path) -> str:
    """The cohorts of real images that published runs are on: what they are part of, and how many cases, as a table.

    Raises:
        InputError: nothing says what a cohort is.
    """
    import pandas as pd

    rows = []
    for path in sorted((root / "book" / "results" / "cohorts").glob("*.csv")):
        name, cases = path.stem.partition("_")[2], pd.read_csv(path).drop_duplicates("case")
        if name not in COHORTS:
            raise InputError(
                f"book/results/cohorts/{path.name}: COHORTS in npcrepro/book/build/evidence.py does not say what "
                f"{name!r} is"
            )
        numbers = {"cases": len(cases), "patients": cases.patient.nunique(), "doubtful": cases.suspect.sum()}
        rows.append({"cohort": name} | numbers | {"what it is": "".join(COHORTS[name])})
    return markdown(rows)


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table of MyST; the keys of the first are the head."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
