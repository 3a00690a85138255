"""Invented records in the form in which they are published with the book."""

import json
from math import nan

import numpy as np
import pandas as pd

from npcrepro.base.files import as_data
from npcrepro.metrics.overlap import METRICS as OVERLAP
from npcrepro.metrics.overlap import Counts
from npcrepro.protocol import registry
from npcrepro.runs.evaluation import REGIONS, VOLUMES, WHOLE
from npcrepro.runs.published import write_by_method


def scored(shared: int, found: int = 100, wanted: int = 100) -> dict:
    """Counts of two masks that share so many voxels of 3 mm3; the AP is the DSC, distances are not measured."""
    counts = Counts(shared, found - shared, wanted - shared, 300)
    names = ("status", "tp", "fp", "fn", "tn", *OVERLAP)
    row = {name: getattr(counts, name) for name in names} | dict.fromkeys(WHOLE, nan)
    row["average_precision"] = counts.dsc
    return row | {name: getattr(counts, name)((3.0, 1.0, 1.0)) for name in VOLUMES}


def cases(dsc: dict[str, np.ndarray], cohort="made-up", structures=("GTVp",), paper="xue2020") -> pd.DataFrame:
    """Rows of cases.csv from the DSC of each method, ``(patients, seeds)``."""
    rows = []
    for method, values in dsc.items():
        for (number, seed), value in np.ndenumerate(np.asarray(values, float)):
            about = {"paper": paper, "method": method, "cohort": cohort, "profile": "bench", "fold": 0, "seed": seed}
            about |= {"case": f"P{number:02}", "patient": f"P{number:02}", "suspect": False}
            # Of equal sizes, so that the share that overlaps is the DSC.
            about |= scored(round(100 * value))
            rows += [about | {"structure": s, "region": r} for s in structures for r in REGIONS]
    return pd.DataFrame(rows)


def publish(folder, rows: pd.DataFrame, falls: float = 0.5, **common):
    folder.mkdir(parents=True)
    write_by_method(folder, "cases", rows, rows.method.unique())
    runs = rows[["paper", "method", "cohort", "profile", "fold", "seed"]].drop_duplicates()
    history = pd.concat([runs.assign(stage="s", update=u, loss=1 - falls * u) for u in (0, 1)])
    write_by_method(folder, "history", history, rows.method.unique())
    first = runs.iloc[0]
    given = common.pop("profile", {"name": "bench"})
    profile = as_data(registry.load(first.paper).profile(given["name"])) | given
    about = {"paper": first.paper, "cohort": first.cohort, "profile": profile} | common
    own = [{"method": run.method, "fold": int(run.fold), "seed": int(run.seed)} for run in runs.itertuples()]
    (folder / "runs.json").write_text(json.dumps({"common": about, "methods": {}, "folds": {}, "runs": own}))


def scores(mean: float, n: int = 20, seeds: int = 3, spread: float = 0.05, generator: int = 0) -> np.ndarray:
    values = np.random.default_rng(generator).normal(mean, spread, n)
    return np.tile(values[:, None], seeds)
