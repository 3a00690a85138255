"""What the chapters say of published runs and where they come from."""

import numpy as np
from record_cases import publish, rows_of

from npcrepro.book.published import PublishedResults
from npcrepro.protocol import registry

LUO = registry.load("luo2020")


def test_about_comes_from_the_record(tmp_path):
    """Five patients in two folds; U-Net misses the tumour of one. F is doubtful."""
    rows = rows_of("unet", 0, "F", suspect=True)
    for i, patient in enumerate("ABCDE"):
        rows += rows_of("two-stage", 8, patient, fold=i % 2) + rows_of("unet", 7 * (i > 0), patient, fold=i % 2)
    record = PublishedResults(LUO, publish(tmp_path / "record", rows))
    told = record.about().data
    assert told.startswith("5 patients tested; 1 more with doubtful labels is in no mean, voxels of 2.5 x 3.9 x 3.9")
    record.published.cases["spacing_x_mm"] += 5.7 + np.arange(len(record.published.cases)) % 2
    assert "voxels of 2.5 x 3.9 x 9.6–10.6 mm" in record.about().data
    assert "Networks have 0.5 times the channels of profile `paper`, a matrix of 80 x 80 and 1,000 updates." in told
    assert "A fold has 4 to 5 patients to train, 1 to validate and 2 to 3 to test." in told
    assert told.endswith("Cohort c, profile p, 2 folds, seed 0, 4 runs, a card, 0.2 h in all, made 2026-01-02.")
    record.published.runs[0]["device"] = "cpu"
    for seed in range(1, 4):  # more than three different lists of seeds are counted only
        record.published.runs.append({**record.published.runs[1], "method": f"more-{seed}", "seed": seed, "fold": 0})
    assert ", 1 to 2 folds, 1 seed of 5 methods, 7 runs, 1 on cpu, 6 on a card, " in record.about().data
