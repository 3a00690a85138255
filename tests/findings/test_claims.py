"""Decisions on invented records with known effects."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.findings.claims import Claim, Decision, all_of
from npcrepro.findings.claims.decision import decide_together as decide_weighed
from npcrepro.findings.claims.decision import weigh_all
from npcrepro.runs.evaluation import VOLUMES
from npcrepro.runs.per_patient import over_structures

EXAMPLE = {"key": "c", "paper": "p", "text": "The cascade beats the single network", "where": "Table 1"}
EXAMPLE |= {"form": "difference", "metric": "dsc", "reported": 0.029}
EXAMPLE |= {"arms": [{"method": "a"}, {"method": "b", "weight": -1}]}


def claim(**changes) -> Claim:
    return Claim.from_data(EXAMPLE | changes)


def decide_together(family) -> list[Decision]:
    return decide_weighed([one for one, _ in family], weigh_all(family))


def decide(one: Claim, patients) -> Decision:
    """One claim by itself."""
    (decision,) = decide_together([(one, patients)])
    return decision


def rows(values: dict[str, np.ndarray], metric="dsc") -> pd.DataFrame:
    """Rows of by_patient from values ``(patients, seeds)`` for each method; the AP says what they say."""
    sign = -0.01 if metric.endswith("_mm") else 1
    about = {"paper": "p", "status": "ok"}
    table = [
        about
        | {"method": method, "patient": f"P{i:03}", "seed": seed, metric: value, "average_precision": sign * value}
        for method, array in values.items()
        for (i, seed), value in np.ndenumerate(np.asarray(array, dtype=float))
    ]
    return pd.DataFrame(table)


def exact(n: int, mean: float, sd: float, seeds: int = 3, generator: int = 0) -> np.ndarray:
    """Values with exactly this mean and sd over patients, alike for all seeds."""
    values = np.random.default_rng(generator).normal(size=n)
    values = mean + sd * (values - values.mean()) / values.std(ddof=1)
    return np.tile(values[:, None], seeds)


def against_zero(difference: np.ndarray) -> pd.DataFrame:
    return rows({"a": 0.5 + difference, "b": np.full_like(difference, 0.5)})


@pytest.mark.parametrize(
    ("mean", "sd", "n", "verdict", "words"),
    [
        (0.030, 0.05, 40, "confirmed", "on the claimed side, and the interval reaches the reported +0.029"),
        (0.100, 0.05, 40, "confirmed", "on the claimed side, and the interval lies beyond the reported +0.029"),
        (0.010, 0.02, 40, "weakened", "short of the reported +0.029"),
        (-0.030, 0.05, 40, "refuted", "below +0.015, the least that matters, and on the other side of the claim"),
        (0.000, 0.02, 40, "refuted", "p < 0.001 after Holm: below +0.015, the least that matters. By AP"),
        (0.010, 0.08, 40, "undecided", "40 patients show an effect of 0.036"),
        (0.050, 0.05, 8, "undecided", "it rests on 8 of the 20 patients that the protocol asks for"),
    ],
)
def test_a_difference(mean, sd, n, verdict, words):
    decision = decide(claim(), against_zero(exact(n, mean, sd)))
    assert decision.verdict == verdict, decision.reason
    assert words in decision.reason
    assert decision.numbers["mean"] == pytest.approx(mean, abs=1e-9)
    assert decision.numbers["sd"] == pytest.approx(sd)
    assert (decision.numbers["patients"], decision.numbers["seeds"]) == (n, 3)


def test_an_effect_that_is_too_small_to_matter_is_none_however_sure():
    """All of the interval is above 0, and all of it inside the margin."""
    records = against_zero(exact(40, 0.003, 0.003))
    trifle = decide(claim(reported=None, margin=0.01), records)
    assert trifle.numbers["low"] > 0
    assert trifle.numbers["p after Holm"] < 0.01
    assert (trifle.verdict, "below +0.010, the least that matters" in trifle.reason) == ("refuted", True)
    # Where an effect is printed, it is shown, and short of it.
    assert decide(claim(reported=0.1), records).verdict == "weakened"


def test_a_difference_of_differences():
    base = exact(40, 0.5, 0.1, generator=1)
    values = {"a": base + 0.04, "b": base, "c": base + 0.01, "d": base}
    values["a"] = values["a"] + exact(40, 0, 0.02, generator=2)
    arms = [{"method": m, "weight": w} for m, w in zip("abcd", (1, -1, -1, 1), strict=True)]
    decision = decide(claim(arms=arms, reported=0.03), rows(values))
    assert decision.numbers["mean"] == pytest.approx(0.03)
    assert decision.verdict == "confirmed"


def test_seeds_that_disagree_leave_it_undecided_and_more_of_them_help():
    values, few = exact(40, 0.03, 0.02), np.array([-1, 0, 1])
    shifts = {"confirmed": 0.005 * few, "undecided": 0.016 * few}
    for verdict, shift in shifts.items():
        decision = decide(claim(), against_zero(values + shift))
        assert decision.numbers["sd between seeds"] == pytest.approx(shift.std(ddof=1))
        assert decision.verdict == verdict, decision.reason
    assert decision.numbers["low with seeds"] < 0 < decision.numbers["low"]
    assert decision.numbers["p"] < 0.001 < 0.05 < decision.numbers["p with seeds"] == decision.numbers["p after Holm"]
    assert "(-0.005 to +0.065 with other seeds, too)" in decision.reason
    assert decision.reason.endswith("but p, which allows for other seeds, too, is above 0.05.")
    assert decision.numbers["open by seeds alone"]
    many = decide(claim(), against_zero(exact(40, 0.03, 0.02, seeds=12) + np.tile(shifts["undecided"], 4)))
    assert many.verdict == "confirmed", many.reason


def test_a_refuted_claim_stands_while_other_trainings_show_no_effect_that_matters():
    """Half of the reported effect is the margin, on this side of 0 as within it."""
    values, few = exact(40, -0.03, 0.02), np.array([-1, 0, 1])
    decision = decide(claim(), against_zero(values + 0.017 * few))
    assert 0 < decision.numbers["high with seeds"] < 0.0145
    assert (decision.verdict, "and on the other side" in decision.reason) == (
        "refuted",
        decision.numbers["p with seeds"] <= 0.05,
    )
    wide = decide(claim(), against_zero(values + 0.034 * few))
    assert wide.numbers["high with seeds"] > 0.0145
    assert wide.verdict == "undecided"
    assert "at 90 % it is below +0.015, the least that matters, but p of that, 0.0" in wide.reason
    # Without an effect that matters, it has to lie on the other side.
    assert decide(claim(reported=None), against_zero(values)).verdict == "refuted"
    assert decide(claim(reported=None), against_zero(exact(40, 0.0, 0.02))).verdict == "undecided"


def test_a_wider_effect_that_matters_is_easier_to_refute():
    """Far on the other side, where an equivalence inside the margin fails."""
    values = against_zero(exact(40, -0.03, 0.02) + 0.005 * np.array([-1, 0, 1]))
    assert {decide(claim(reported=2 * margin), values).verdict for margin in (0.01, 0.02, 0.03, 0.04)} == {"refuted"}


def test_an_equivalence_is_refuted_by_the_interval_of_a_difference():
    """With other seeds the interval of 90 % lies beyond the margin, and that of 95 % does not."""
    alike = claim(form="equivalence", margin=0.05, reported=None)
    moved = exact(24, -0.3, 0.02) + 0.12 * np.array([-1, 0, 1])
    decision = decide(alike, against_zero(moved))
    assert decision.verdict == "undecided"
    assert "includes -0.050 or +0.050" in decision.reason
    assert decide(alike, against_zero(exact(24, -0.3, 0.02) + 0.05 * np.array([-1, 0, 1]))).verdict == "refuted"


def test_a_second_comparison_has_to_show_a_likeness_too():
    patients = against_zero(exact(40, 0.0, 0.02))
    assert decide(claim(), patients).verdict == "refuted"
    wide = patients.copy()
    wide.loc[wide.method == "a", "average_precision"] = 0.5 + exact(40, 0.0, 0.2, generator=1).ravel()
    decision = decide(claim(), wide)
    assert decision.verdict == "undecided"
    assert "But by AP (mean difference -0.000, 90 % interval -0.0" in decision.reason
    assert decision.reason.endswith("it is not shown.")


def test_a_jaccard_index_is_held_against_its_own_kind():
    """The margin has its unit, and half of the reported gain is another number for the DSC."""
    values = exact(40, 0.0, 0.02)
    patients = rows({"a": 0.5 + values, "b": np.full_like(values, 0.5)}, "jsc").drop(columns="average_precision")
    for name, verdict in (("jsc_validated", "refuted"), ("dsc_validated", "undecided")):
        assert decide(claim(metric="jsc"), patients.assign(**{name: patients.jsc})).verdict == verdict


def test_a_network_that_did_not_learn_is_no_rival():
    records = against_zero(exact(40, 0.05, 0.02))
    assert decide(claim(), records.assign(silent=[()] * len(records))).verdict == "confirmed"
    names = {("b", 0): ("Larynx", "Spine"), ("b", 1): ("Larynx",)}
    silent = [names.get(run, ()) for run in zip(records.method, records.seed, strict=True)]
    decision = decide(claim(), records.assign(silent=silent))
    assert decision.verdict == "undecided"
    assert "But b found nothing of Larynx in 2 and Spine in 1 of 3 seeds, and a network that" in decision.reason
    # Who loses against it has lost.
    turned = records.assign(dsc=1 - records.dsc, average_precision=1 - records.dsc, silent=silent)
    assert decide(claim(), turned).verdict == "refuted"
    # That the one which did not learn is the worse one is nothing, in whichever order they stand; of a distance, too.
    arms = [{"method": "b"}, {"method": "a", "weight": -1}]
    worse = claim(arms=arms, direction="less", reported=-0.029)
    assert decide(worse, records).verdict == "confirmed"
    assert decide(worse, records.assign(silent=silent)).verdict == "undecided"
    far = rows({"a": 10 + exact(40, -3.0, 1.0), "b": np.full((40, 3), 10.0)}, "hd_mm").assign(silent=silent)
    distance = claim(metric="hd_mm", direction="less", reported=-3.0, rule="leave_out")
    assert decide(distance, far).verdict == "undecided"
    # Nor are two alike of which one did not learn; by their spread the second is the rival.
    same = claim(form="equivalence", margin=0.1, reported=None)
    assert [decide(same, records.assign(**more)).verdict for more in ({}, {"silent": silent})] == [
        "confirmed",
        "undecided",
    ]


def test_what_only_seeds_hold_open_takes_no_more_patients():
    few_seeds = decide(claim(seeds=5), against_zero(exact(24, 0.05, 0.03)))
    assert (few_seeds.verdict, few_seeds.numbers["open by seeds alone"]) == ("undecided", 1)
    few_patients = decide(claim(), against_zero(exact(8, 0.05, 0.03)))
    assert (few_patients.verdict, few_patients.numbers["open by seeds alone"]) == ("undecided", 0)


def test_each_fold_with_each_seed_is_a_training():
    """Networks of five folds that differ by chance are fifteen draws, not three."""
    folds = np.repeat(np.arange(5), 8)
    added = np.random.default_rng(4).normal(0, 0.03, (5, 3))
    added = added - added.mean(axis=0) + np.array([-0.016, 0, 0.016])
    values = exact(40, 0.03, 0.02) + added[folds]
    records = against_zero(values)
    wide, narrow = (
        decide(claim(), records),
        decide(claim(), records.assign(fold=records.patient.str[1:].astype(int) // 8)),
    )
    assert (wide.verdict, narrow.verdict) == ("undecided", "confirmed"), (wide.reason, narrow.reason)


def test_a_verdict_at_one_threshold_is_held_against_one_that_is_not():
    """A network that marks more, as that of a loss which weighs the tumour, is not one that finds more."""
    records = against_zero(exact(40, 0.03, 0.05))
    one = records.method == "a"
    flat = records.assign(average_precision=0.5 + 0.05 * np.random.default_rng(5).normal(size=len(records)))
    mixed = decide(claim(), flat)
    assert mixed.verdict == "mixed"
    assert "But by AP (mean difference " in mixed.reason
    # What holds both answers does not contradict.
    wide = records.assign(average_precision=0.5 + 0.03 * one + 0.1 * np.random.default_rng(6).normal(size=len(records)))
    assert decide(claim(), wide).verdict == "undecided"
    assert decide(claim(), wide).reason.endswith("it is not shown.")
    # The threshold that the validation patients choose goes before the AP.
    better = flat.assign(dsc_validated=records.dsc)
    assert "By DSC at the validated threshold (mean difference +0.030" in decide(claim(), better).reason
    assert decide(claim(), better).verdict == "confirmed"
    # Where only one of the two has such a threshold, AP is what both have.
    halved = flat.assign(dsc_validated=records.dsc.where(one))
    assert decide(claim(), halved).reason == mixed.reason
    noisy = records.assign(average_precision=records.dsc + one * (records.seed - 1) * 0.1)
    assert "it need not be the same with other seeds" in decide(claim(), noisy).reason
    neither = decide(claim(), records.drop(columns="average_precision"))
    assert neither.verdict == "undecided"
    assert "the records hold neither DSC at the validated threshold nor AP" in neither.reason
    # Of a distance less is better, of an AP more.
    values = exact(40, -3.0, 1.0)
    distance = rows({"a": 10 + values, "b": np.full_like(values, 10)}, "hd_mm")
    about = {"metric": "hd_mm", "direction": "less", "reported": -3.0, "rule": "leave_out"}
    assert decide(claim(**about), distance).verdict == "confirmed"
    turned = distance.assign(average_precision=-distance.average_precision)
    assert decide(claim(**about), turned).verdict == "mixed"


def test_seeds_that_one_arm_lacks_may_take_a_verdict_back():
    records = against_zero(exact(40, 0.03, 0.02))
    assert decide(claim(), records).verdict == "confirmed"
    more = records[(records.method == "a") & (records.seed == 0)]
    fair, poor = (records.dsc.sub(loss).loc[more.index] for loss in (0.0, 0.2))
    for values, verdict in ((fair, "confirmed"), (poor, "undecided")):
        found = decide(claim(), pd.concat([records, more.assign(seed=9, dsc=values)]))
        assert found.verdict == verdict, found.reason
    assert "over all seeds of each arm, some of which others lack, it is -0.0" in found.reason


def test_likenesses_that_refute_are_corrected_for_each_other():
    """One of p 0.03 refutes by itself, and no longer among two more that show nothing."""
    alike = exact(22, 0.0, 0.02, generator=3)
    values = alike + 0.006 - alike.mean()
    one = claim(reported=0.029)
    alone = decide(one, against_zero(values))
    assert alone.verdict == "refuted"
    assert 0.02 < alone.numbers["p of a small effect"] == alone.numbers["p of a small effect after Holm"] < 0.05
    others = [(claim(key=key, reported=0.029), against_zero(exact(22, 0.02, 0.02))) for key in "de"]
    among = decide_together([(one, against_zero(values)), *others])[0]
    assert among.numbers["p of a small effect after Holm"] == pytest.approx(3 * alone.numbers["p of a small effect"])
    assert among.verdict == "undecided"


def test_a_patient_who_decides_alone_is_told():
    values = np.append(np.linspace(0.01, 0.03, 24), -0.5)[:, None] * np.ones(3)
    decision = decide(claim(), against_zero(values))
    assert decision.verdict == "undecided"
    words = "24 of 25 are above 0 and 1 below, and by ranks (Wilcoxon) p is < 0.001 in place of "
    assert words in decision.reason
    assert "by ranks" not in decide(claim(), against_zero(values[:-1])).reason


def test_seeds_that_one_arm_has_alone_are_left_out():
    records = against_zero(exact(40, 0.03, 0.02, seeds=4))
    fewer = records[(records.method == "a") | (records.seed < 3)]
    decision = decide(claim(), fewer)
    assert (decision.verdict, decision.numbers["seeds"]) == ("confirmed", 3)
    none = records[(records.method == "a") == (records.seed < 2)]
    assert "not run on the same patients with the same seeds" in decide(claim(), none).reason


def test_too_few_seeds_leave_it_undecided():
    values = exact(40, 0.03, 0.02)
    decision = decide(claim(), against_zero(values[:, :1]))
    assert decision.verdict == "undecided"
    assert "1 of the 3 seeds" in decision.reason
    assert decide(claim(seeds=1), against_zero(values[:, :1])).verdict == "confirmed"
    assert decide(claim(seeds=5), against_zero(values)).verdict == "undecided"


def test_holm_counts_the_claims_decided_together():
    """A p of about 0.03 stands alone and falls among three."""
    near, strong = against_zero(exact(40, 0.0175, 0.05)), against_zero(exact(40, 0.04, 0.05))
    alone = decide(claim(), near)
    assert alone.verdict == "confirmed"
    assert 0.02 < alone.numbers["p with seeds"] == alone.numbers["p after Holm"] < 0.05
    among = decide_together([(claim(key="x"), near), (claim(key="y"), near), (claim(key="z"), strong)])
    assert [d.claim for d in among] == ["x", "y", "z"]
    assert [d.verdict for d in among] == ["undecided", "undecided", "confirmed"]
    assert among[0].numbers["p after Holm"] == pytest.approx(2 * alone.numbers["p with seeds"])
    assert "the interval excludes 0, but p, which allows for other seeds, too, is above 0.05." in among[0].reason


def test_a_claim_that_repeats_another_is_not_counted_by_holm():
    """DSC and Jaccard index are one question: each has the p that it would have without the other."""
    near, strong = against_zero(exact(40, 0.0175, 0.05)), against_zero(exact(40, 0.04, 0.05))
    again = (claim(key="y", repeats="x"), near.assign(dsc=near.dsc + 0.001 * (near.method == "a")))
    others = [(claim(key="z"), strong), (claim(key="v"), strong)]
    one, two, *rest = decide_together([(claim(key="x"), near), again, *others])
    assert [one, *rest] == decide_together([(claim(key="x"), near), *others])
    assert two.numbers["p with seeds"] == two.numbers["p after Holm"] < one.numbers["p with seeds"]
    # Should the other not be there, it counts as any claim.
    (alone, *_) = decide_together([again, *others])
    assert alone == two
    five = decide_together([again, (claim(key="x"), near), (claim(key="w"), near)])
    assert five[0].numbers["p after Holm"] == pytest.approx(2 * five[0].numbers["p with seeds"])


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [(0.2, 3.0, "confirmed"), (0.2, 8.0, "weakened"), (5.0, 3.0, "refuted"), (2.0, 8.0, "undecided")],
)
def test_an_equivalence(mean, sd, verdict):
    one = claim(form="equivalence", metric="hd_mm", reported=None, margin=2.0, wider_margin=3.0, rule="leave_out")
    values = exact(40, mean, sd)
    decision = decide(one, rows({"a": 10 + values, "b": np.full_like(values, 10)}, "hd_mm"))
    assert decision.verdict == verdict, decision.reason
    # p is that of likeness, and says nothing beside a difference.
    assert ("after Holm" in decision.reason) == (verdict in ("confirmed", "undecided"))
    if verdict == "undecided":
        assert "40 patients show a margin of 3.768" in decision.reason


@pytest.mark.parametrize(
    ("ratio", "correlation", "n", "verdict"),
    [
        (0.8, 0.9, 60, "confirmed"),
        (0.85, 0.5, 15, "undecided"),
        (1.3, 0.9, 60, "refuted"),
        (0.93, 0.99, 60, "weakened"),
    ],
)
def test_a_spread(ratio, correlation, n, verdict):
    one = claim(form="spread", arms=[{"method": "a"}, {"method": "b"}], direction="less", reported=0.85)
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(0).normal(size=(n, 2))]))[0][:, 1:]
    basis = basis / basis.std(axis=0, ddof=1)
    second = basis[:, 0]
    first = ratio * (correlation * basis[:, 0] + (1 - correlation**2) ** 0.5 * basis[:, 1])
    tile = lambda x: np.tile(0.5 + 0.1 * x[:, None], 3)  # noqa: E731
    decision = decide(one, rows({"a": tile(first), "b": tile(second)}))
    assert decision.verdict == verdict, decision.reason
    assert decision.numbers["ratio"] == pytest.approx(ratio)
    assert decision.numbers["correlation"] == pytest.approx(correlation)
    assert f"Ratio of the standard deviations {ratio:.2f}" in decision.reason
    if verdict == "undecided":
        assert "reported: 0.85" in decision.reason
        assert decision.numbers["detectable"] < 0.7  # fifteen patients show only a much smaller ratio


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [(0.89, 0.05, "confirmed"), (0.875, 0.02, "weakened"), (0.80, 0.05, "refuted"), (0.88, 0.15, "undecided")],
)
def test_a_value_is_reached(mean, sd, verdict):
    one = claim(form="value", arms=[{"method": "a"}], value=0.89, margin=0.02, reported=None)
    decision = decide(one, rows({"a": exact(29, mean, sd)}))
    assert decision.verdict == verdict, decision.reason
    assert f"Mean {mean:.3f}" in decision.reason
    assert isnan(decision.numbers["p after Holm"])


@pytest.mark.parametrize(
    ("low", "n", "verdict"), [(0, 29, "undecided"), (0, 60, "confirmed"), (9, 29, "refuted"), (4, 29, "undecided")]
)
def test_a_share_of_patients(low, n, verdict):
    one = claim(form="share", arms=[{"method": "a"}], threshold=0.8, value=0.098, direction="less", reported=None)
    values = np.full((n, 3), 0.9)
    values[:low] = 0.7
    decision = decide(one, rows({"a": values}))
    assert decision.verdict == verdict, decision.reason
    assert f"{low} of {n} patients are below 0.8" in decision.reason


def test_a_failure_counts_as_the_worst_value():
    records = against_zero(exact(40, 0.03, 0.05))
    failed = (records.method == "a") & (records.patient < "P005")
    records.loc[failed, ["dsc", "status"]] = [nan, "missing"]
    decision = decide(claim(), records)
    assert (decision.numbers["undefined counted"], decision.numbers["patients"]) == (15, 40)
    assert "undefined values count as 0" in decision.reason
    assert "counted: 15, patients left out: 0" in decision.reason
    assert decision.numbers["mean"] < 0 < decide(claim(rule="leave_out"), records).numbers["mean"]
    assert decide(claim(rule="leave_out"), records).numbers["left out"] == 5


def test_a_failure_that_is_left_out_leaves_it_undecided():
    """Distances of an empty mask do not exist; without these patients a method would look better than it is."""
    records = against_zero(exact(40, 0.03, 0.02))
    records.loc[(records.method == "a") & (records.patient < "P003"), ["dsc", "status"]] = [nan, "pred_empty"]
    decision = decide(claim(rule="leave_out"), records)
    assert decision.verdict == "undecided"
    assert "3 patients are left out for a failure" in decision.reason
    about = {"cohort": "c", "profile": "p", "suspect": False, "region": "all_slices", **dict.fromkeys(VOLUMES, 1.0)}
    two = pd.concat([records.assign(structure="A"), records.assign(structure="B", status="ok", dsc=0.5)])
    decision = decide(claim(rule="leave_out"), over_structures(two.assign(**about), ["dsc"]))
    assert decision.verdict == "undecided"
    assert "3 patients are left out for a failure" in decision.reason
    records["status"] = records.status.replace("pred_empty", "both_empty")
    assert decide(claim(rule="leave_out"), records).verdict == "confirmed"


def test_two_patients_have_no_interval():
    decision = decide(claim(), against_zero(exact(2, 0.03, 0.01)))
    assert decision.verdict == "undecided"
    assert "there is no interval" in decision.reason
    assert "nan" not in decision.reason
    value = claim(form="value", arms=[{"method": "a"}], value=0.5, reported=None)
    assert decide(value, against_zero(exact(2, 0.03, 0.01))).verdict == "undecided"
    none = decide(claim(rule="leave_out"), against_zero(exact(4, 0.03, 0.05)).assign(dsc=nan))
    assert none == Decision("c", "undecided", "No patient has a value in every arm (4 left out).")


@pytest.mark.parametrize(
    ("verdicts", "needed", "missing", "expected"),
    [
        (["confirmed", "confirmed"], 0, 0, "confirmed"),
        (["weakened", "undecided"], 0, 0, "undecided"),
        (["confirmed"], 0, 1, "undecided"),
        (["confirmed", "confirmed", "refuted"], 2, 0, "confirmed"),
        (["confirmed", "refuted"], 2, 1, "undecided"),
        (["confirmed", "refuted"], 0, 0, "mixed"),
        (["confirmed", "mixed"], 0, 0, "mixed"),
        (["refuted", "refuted"], 0, 0, "refuted"),
        (["refuted", "undecided"], 0, 0, "refuted"),
        (["refuted", "undecided"], 1, 0, "undecided"),
    ],
)
def test_a_claim_of_several_parts(verdicts, needed, missing, expected):
    parts = [Decision(f"part{i}", v, "") for i, v in enumerate(verdicts)]
    decision = all_of("whole", parts, needed, missing)
    assert (decision.claim, decision.verdict) == ("whole", expected)
    of = len(verdicts) + missing
    assert decision.reason.startswith(f"{needed or of} of {of} parts have to hold: part0 is {verdicts[0]}")
    with pytest.raises(ValueError, match="no part"):
        all_of("whole", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "diference"}, "did you mean 'difference'"),
        ({"reported": -0.029}, "does not lie on the claimed side"),
        ({"arms": [{"method": "a"}, {"method": "b"}]}, "add up to 0"),
        ({"form": "spread", "arms": [{"method": "a"}], "reported": None}, "compares two arms"),
        ({"form": "equivalence"}, "needs a margin"),
        ({"form": "equivalence", "margin": 0.02, "wider_margin": 0.01}, "not wider than margin"),
        ({"metric": "hd_mm"}, "worst value of hd_mm is not known"),
        ({"scale": "log"}, "worst value of dsc is not known"),
        ({"control": {"form": "elsewhere", "needs": "x", "key": "d"}}, "under the same key"),
    ],
)
def test_a_claim_that_contradicts_itself(changes, message):
    with pytest.raises(InputError, match=message):
        claim(**changes)


def test_rows_that_do_not_fit_a_claim():
    records = against_zero(exact(4, 0, 1))
    with pytest.raises(InputError, match="no column 'dcs'"):
        decide(claim(metric="dcs", rule="leave_out"), records)
    with pytest.raises(InputError, match="select one structure"):
        decide(claim(), pd.concat([records, records]))


def test_the_fingerprint_of_a_test_knows_its_numbers_and_not_the_words_of_the_claim():
    first = claim(test="Paired,  on the structures")
    same = claim(
        test="Paired, on the structures", text="In other words", limits="x", seeds=3, frozen="new", rule="worst"
    )
    assert first.fingerprint == same.fingerprint
    changed = ({"test": "Paired"}, {"reported": 0.03}, {"seeds": 5}, {"arms": [{"method": "c"}, EXAMPLE["arms"][1]]})
    assert len({claim(**{"test": first.test} | each).fingerprint for each in ({}, *changed)}) == 5
    part = EXAMPLE | {"key": "c part"}
    whole = {"form": "all", "metric": "", "arms": [], "reported": None}
    parts = [claim(**whole, parts=[part | {"margin": margin}]).fingerprint for margin in (0.01, 0.02)]
    assert parts[0] != parts[1]
