"""Claims that are decided again with one choice made otherwise."""

import numpy as np
import pandas as pd
from published_cases import cases, publish, scores

from npcrepro.findings.claims import ledger, sensitivity
from npcrepro.findings.claims.ledger import SEEN


def otherwise(results, paper: str) -> list[sensitivity.Otherwise]:
    return sensitivity.otherwise(ledger.sources(results), [paper])


def turned(results, paper: str) -> list[tuple[str, str, str, str]]:
    """Number of each claim whose verdict turns, with the verdict, the choice and the verdict then."""
    rows = sensitivity.table(otherwise(results, paper))
    changes = rows.change.str.split(" to ")
    return [
        (claim, before, choice, after)
        for claim, (before, after), choice in zip(rows.claim, changes, rows["choice made otherwise"], strict=True)
    ]


def test_false_positives_outside_the_slices_of_a_structure_can_turn_a_verdict(tmp_path, few_resamples):
    better = cases({"deeplabv3plus": scores(0.8, 25), "unet": scores(0.7, 25)}).query("region == 'all_slices'")
    worse = cases({"deeplabv3plus": scores(0.7, 25), "unet": scores(0.8, 25)}).query("region != 'all_slices'")
    publish(tmp_path / "a", pd.concat([better, worse]))
    # The AP is of all slices, and stays.
    assert ("56", SEEN, sensitivity.SLICES, "mixed") in turned(tmp_path, "xue2020")


def two_networks() -> pd.DataFrame:
    """The cascade before ACDNet in DSC and MASD, behind it in ASSD, and in the DSC of its slices; 25 patients."""
    better = cases({"cscn": scores(0.8, 25), "acdnet": scores(0.75, 25)}, paper="guo2021").query(
        "region == 'all_slices'"
    )
    worse = cases({"cscn": scores(0.75, 25), "acdnet": scores(0.8, 25)}, paper="guo2021").query(
        "region != 'all_slices'"
    )
    one, varied = better.method == "cscn", np.random.default_rng(0).normal(0, 0.1, len(better))
    better = better.assign(voxel_masd_mm=np.where(one, 1, 2) + varied, voxel_assd_mm=np.where(one, 2, 1) + varied)
    return pd.concat([better, worse])


def test_the_patient_without_whom_a_verdict_turns_is_named(tmp_path):
    """Of 20 patients some carry a difference that is hardly there without them; 19 are not too few for that."""
    less = np.random.default_rng(1).normal(size=20)
    less = np.tile((0.025 + 0.05 * (less - less.mean()) / less.std(ddof=1)).round(2)[:, None], 3)
    dsc = {"two-stage": np.full((20, 3), 0.8), "mask-rcnn": 0.8 - less}
    publish(tmp_path / "a", cases(dsc, paper="luo2020"))
    found = [each for each in turned(tmp_path, "luo2020") if each[0] == "14" and "control" not in each[2]]
    ((_, before, choice, after),) = found
    assert (before, after) == (SEEN, "not seen here")
    assert (
        choice.startswith(f"one patient left out: P{less[:, 0].argmax():02}") or f"P{less[:, 0].argmax():02}" in choice
    )


def test_a_distance_by_the_other_convention_and_a_part_that_slices_have(tmp_path, few_resamples):
    """ASSD weighs surfaces by their size, MASD does not. A distance in chosen slices does not exist: it stays."""
    publish(tmp_path / "a", two_networks())
    found = otherwise(tmp_path, "guo2021")
    after = {one.choice: one.after for one in found if one.before.claim.key == "guo2021-24"}
    assert after["by ASSD in place of MASD"].verdict == "mixed"
    assert [part.verdict for part in after[sensitivity.SLICES].parts] == ["mixed", "confirmed"]
    # What is asked again is the line of the ledger, with the p values of all others.
    lines = {one.claim.key: one for one in ledger.ledger(ledger.sources(tmp_path), ["guo2021"])}
    for one in found:
        assert one.before == lines[one.before.claim.key]
        assert one.before.verdict == SEEN
