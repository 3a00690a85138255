"""A published record made of counts of voxels, without a training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from npcrepro.runs.evaluation import CASE_COLUMNS
from npcrepro.runs.published import write_by_method


def rows_of(method, hits, patient, *, structure="BrainStem", seed=0, fold=0, suspect=False, paper="luo2020"):
    """Rows of one case in both regions: ``hits`` of 10 voxels found, no other drawn, so that DSC = 2h / (h + 10)."""
    run = {"paper": paper, "method": method, "cohort": "c", "profile": "p", "fold": fold, "seed": seed}
    values = dict.fromkeys(CASE_COLUMNS, 0.5)
    values |= {"case": patient, "patient": patient, "suspect": suspect, "structure": structure}
    values |= {"status": "ok" if hits else "pred_empty", "tp": hits, "fp": 0, "fn": 10 - hits, "tn": 90}
    values |= {"surfel_hd95_mm": 2.0 if hits else np.nan, "reference_ml": 10.0, "predicted_ml": float(hits)}
    values |= {"spacing_z_mm": 2.5, "spacing_y_mm": 3.9, "spacing_x_mm": 3.9}
    return [run | values | {"region": region} for region in ("all_slices", "reference_slices")]


def publish(folder: Path, rows: list[dict]) -> Path:
    """A record with these rows, as `npcrepro.runs.published.publish` would write it."""
    folder.mkdir()
    cases = pd.DataFrame(rows)
    write_by_method(folder, "cases", cases, cases.method.unique())
    runs = cases[["method", "fold", "seed"]].drop_duplicates().to_dict("records")
    own = [{**run, "seconds": {"train": 120.0, "predict": 30.0, "all": 150.0}} for run in runs]
    profile = {"name": "p", "width": 0.5, "matrix": [80, 80], "updates": 1000}
    common = {"paper": "p", "cohort": "c", "profile": profile, "device": "a card", "finished": "2026-01-02T00:00:00"}
    folds = {0: {"train": list("GHIJ"), "validation": ["K"], "test": list("ACE")}}
    folds[1] = {"train": list("GHIJA"), "validation": ["K"], "test": list("BD")}
    (folder / "runs.json").write_text(json.dumps({"common": common, "folds": folds, "runs": own}))
    curve = [{"stage": "s", "update": update, "loss": 1 / update, "validation_loss": 1 / update} for update in (1, 2)]
    history = pd.DataFrame([run | point for run in runs for point in curve])
    write_by_method(folder, "history", history, cases.method.unique())
    return folder


def dsc(hits: float) -> float:
    """DSC of a case of `rows_of`."""
    return 2 * hits / (hits + 10)
