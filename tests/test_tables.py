import numpy as np
import pandas as pd
import pytest

from npcrepro import evaluation, tables
from npcrepro.metrics.overlap import METRICS
from npcrepro.papers.li2018 import PAPER


def patients(dsc: dict[str, list[float]], structure="GTVp", seeds=(0,)) -> pd.DataFrame:
    """Rows as of evaluation.by_patient: one value for each patient, the same for all metrics and seeds."""
    rows = [
        {"paper": "li2018", "method": method, "cohort": "c", "profile": "p", "seed": seed, "patient": f"P{i}"}
        | {"suspect": False, "structure": structure, "region": "all_slices", "reference_ml": 1.0, "predicted_ml": 1.0}
        | dict.fromkeys(METRICS, value + 0.1 * seed)
        for method, values in dsc.items()
        for i, value in enumerate(values)
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def test_scores_count_patients_and_not_seeds():
    rows = tables.scores(patients({"stepwise": [0.2, 0.4, 0.6]}, seeds=(0, 1)), PAPER, {"dsc": "DSC"})
    assert (rows.patients[0], rows.seeds[0]) == (3, 2)
    assert rows.DSC[0].mean == pytest.approx(0.45)
    assert rows.DSC[0].n == 3


def test_two_structures_in_one_mean_are_an_error():
    both = pd.concat([patients({"stepwise": [0.2, 0.4]}), patients({"stepwise": [0.3, 0.5]}, structure="GTVnd")])
    with pytest.raises(ValueError, match="select one structure"):
        tables.scores(both, PAPER, {"dsc": "DSC"})
    assert len(tables.scores(evaluation.select(both, "GTVnd", "all_slices"), PAPER, {"dsc": "DSC"})) == 1


def test_differences_are_paired_with_the_first_method():
    rows = tables.differences(patients({"stepwise": [0.2, 0.4, 0.6], "linear-scores": [0.3, 0.6, 0.9]}), PAPER, "dsc")
    assert rows.comparison.tolist() == ["Stepwise, linear scores minus Stepwise, as printed"]
    assert rows["mean difference"].tolist() == ["+0.200"]
    assert rows["p (sign-flip, Holm)"].tolist() == ["0.250"]  # 2 of the 8 sign flips are as extreme


def test_each_comparison_changes_one_thing():
    values = {"stepwise": [0.1, 0.2], "linear-scores": [0.3, 0.5], "linear-unfused": [0.2, 0.4]}
    rows = tables.differences(patients(values), PAPER, "dsc")
    assert rows.comparison.tolist() == [
        "Stepwise, linear scores minus Stepwise, as printed",
        "No fusion, linear scores minus Stepwise, linear scores",
    ]
    assert rows["mean difference"].tolist() == ["+0.250", "-0.100"]
    without = tables.differences(
        patients({name: values[name] for name in ("stepwise", "linear-unfused")}), PAPER, "dsc"
    )
    assert without.empty


def test_one_method_leaves_nothing_to_compare():
    assert tables.differences(patients({"stepwise": [0.2, 0.4]}), PAPER, "dsc").empty


def test_spread_over_seeds_is_that_of_the_cohort_mean():
    spread = tables.seed_spread(patients({"stepwise": [0.2, 0.4]}, seeds=(0, 1, 2)), "dsc")
    assert spread["stepwise"] == pytest.approx(np.std([0.3, 0.4, 0.5], ddof=1))


def test_a_printed_cell_shows_what_is_printed():
    assert (
        tables.printed_cell({"mean": 0.89, "sd": 0.05, "range_low": 0.8, "range_high": 0.95})
        == "0.89 ± 0.05, 0.80 to 0.95"
    )
    assert tables.printed_cell({"range_high": 0.8}) == "n.a., up to 0.80"
    assert tables.printed_cell(None) == "n.a."


def test_ratios_agree_within_rounding():
    # 7.8/8.0 lies in 0.963-0.988, 0.84/0.81 in 1.025-1.050.
    assert not tables.ratio_agrees(np.array([7.8]), np.array([8.0]), 0.84, 0.81, 0.05, 0.005)[0]
    assert tables.ratio_agrees(np.array([8.0]), np.array([7.8]), 0.84, 0.81, 0.05, 0.005)[0]
