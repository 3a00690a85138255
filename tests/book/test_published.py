"""What the chapters say of published runs and where they come from."""

from functools import cache

import numpy as np
import pytest
from record_cases import publish, rows_of

from npcrepro.book.published import PublishedResults
from npcrepro.protocol import registry
from npcrepro.runs.published import RESULTS

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


NO_GAIN, BELOW, ABOVE, DISAGREE = "no gain", "below in every seed", "above in every seed", "the seeds disagree in sign"
# What sentences on the pages say of a difference, the first method minus the second, in words that nothing computes.
PHANTOM, STS, KBP = "chen2020-phantom", "guo2021-sts", "luo2020-openkbp-long"
TYPED = [
    ("li2018-sts", "linear-scores", "linear-one-shot", NO_GAIN),
    ("li2018-sts", "linear-scores", "support-vectors", NO_GAIN),
    (KBP, "two-stage", "unet", NO_GAIN),
    (KBP, "two-stage", "no-pooling", NO_GAIN),
    (STS, "cscn", "acdnet", NO_GAIN),
    (PHANTOM, "mmfnet", "mmfnet-no-transfer", BELOW),
    (PHANTOM, "multi-encoder-transfer", "multi-encoder", DISAGREE),
    (PHANTOM, "mmfnet-base-transfer", "mmfnet-base", DISAGREE),
    (PHANTOM, "mmfnet-multi-mlp-transfer", "mmfnet-multi-mlp", DISAGREE),
    (PHANTOM, "mmfnet-no-transfer-long", "mmfnet", ABOVE),
    (PHANTOM, "mmfnet-no-transfer-long", "mmfnet-no-transfer", ABOVE),
    (PHANTOM, "mmfnet-base", "multi-encoder", DISAGREE),
    (PHANTOM, "mmfnet-multi-mlp", "mmfnet-base", DISAGREE),
    (PHANTOM, "mmfnet-std-channel", "mmfnet-multi-mlp", DISAGREE),
    (PHANTOM, "mmfnet-std-spatial", "mmfnet-multi-mlp", DISAGREE),
    (PHANTOM, "mmfnet-no-transfer", "mmfnet-multi-mlp", DISAGREE),
    (PHANTOM, "mmfnet-no-transfer", "multi-encoder", DISAGREE),
    (PHANTOM, "mmfnet", "mmfnet-t1-t2", ABOVE),
    (PHANTOM, "mmfnet", "mmfnet-t1-cet1", DISAGREE),
    (PHANTOM, "mmfnet", "mmfnet-t2-cet1", DISAGREE),
    (PHANTOM, "mmfnet", "patch-cnn", DISAGREE),
    (PHANTOM, "mmfnet-no-transfer", "patch-cnn", ABOVE),
    *((PHANTOM, f"patch-cnn-{one}", f"unet-2d-{one}", BELOW) for one in ("t1", "t2", "cet1")),
]


@cache
def of_record(record):
    paper = record.partition("-")[0]
    region = "reference_slices" if paper == "li2018" else "all_slices"  # as the page of the paper has it
    return PublishedResults(registry.load(paper), RESULTS / record, region)


@pytest.mark.parametrize(("record", "first", "second", "said"), TYPED)
def test_words_on_the_pages_hold_in_the_records(record, first, second, said):
    results = of_record(record)
    found, seeds = results.difference(first, second).difference, results.by_seed(first, second).mean()
    holds = {NO_GAIN: found.low <= 0, BELOW: (seeds < 0).all(), ABOVE: (seeds > 0).all()}
    holds[DISAGREE] = seeds.min() < 0 < seeds.max()
    assert holds[said], f"{first} minus {second} is {results.difference_text(first, second)}: {seeds.round(3).tolist()}"
