"""The ledger of claims on invented publications, and on those of the book."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from published_cases import cases, publish, scores

from npcrepro.base.errors import InputError
from npcrepro.base.files import read_json, write_json
from npcrepro.findings import leakage
from npcrepro.findings.claims import ledger, source
from npcrepro.findings.claims.family import patients_wanted
from npcrepro.protocol import registry

CLAIMS = [(key, claim) for key in registry.KEYS for claim in ledger.claims(key)]


def test_claims_are_numbered_through_the_book():
    """The ledger shows the number alone, and other pages name claims by it."""
    assert [claim.key for _, claim in CLAIMS] == [f"{key}-{number}" for number, (key, _) in enumerate(CLAIMS, 1)]
    parts = [part.key for _, claim in CLAIMS for part in claim.parts]
    assert [claim.key for _, claim in CLAIMS if claim.by == "book"] == ["luo2020-16", "xue2020-67"]
    # Whatever records can decide was frozen when it was written down.
    assert [claim.key for _, claim in CLAIMS if claim.tested and not claim.frozen] == []
    assert len({claim.key for _, claim in CLAIMS} | {*parts}) == len(CLAIMS) + len(parts)
    for key, claim in CLAIMS:
        assert claim.paper == key
        assert all((claim.text, claim.where, claim.printed, claim.test)), claim.key
        assert not claim.text.endswith("."), claim.key


def test_a_misspelt_method_of_a_claim_is_an_error(monkeypatch):
    arms = [{"method": "unet"}, {"method": "unet-32", "weight": -1}]
    misspelt = [{"method": "unett"}, arms[1]]
    about = {"key": "c", "text": "t", "where": "w", "form": "difference", "metric": "dsc", "arms": arms}
    monkeypatch.setattr(registry, "reported", lambda key: {"claims": [about]})
    assert [claim.key for claim in ledger.claims("xue2020")] == ["c"]
    monkeypatch.setattr(registry, "reported", lambda key: {"claims": [about | {"arms": misspelt}]})
    with pytest.raises(InputError, match="unknown method of claim c 'unett'; did you mean 'unet'"):
        ledger.claims("xue2020")
    monkeypatch.setattr(registry, "reported", lambda key: {})
    assert ledger.claims("xue2020") == []  # a paper may come without claims


def line(results, key: str):
    paper = key.split("-")[0]
    return next(one for one in ledger.ledger(ledger.sources(results), [paper]) if one.claim.key == key)


def test_without_publications_a_claim_stays_with_the_command_that_makes_some(tmp_path):
    one = line(tmp_path, "xue2020-56")
    assert one.verdict == ledger.NO_EVIDENCE
    assert ledger.command(one.claim) == (
        "npcrepro run xue2020 --cohort COHORT --methods deeplabv3plus --methods unet --seeds 0 --seeds 1 --seeds 2 "
        "--publish book/results/NAME"
    )
    assert (one.effect, one.patients, one.cohort) == ("", "", "")
    assert one.controlled == one.verdict  # it has no other test
    elsewhere = line(tmp_path, "xue2020-65")
    assert elsewhere.verdict == ledger.NOT_HERE
    assert elsewhere.reason.startswith("It takes patients with both images")
    assert ledger.command(elsewhere.claim) == ""


def test_publications_decide(tmp_path, few_resamples):
    publish(tmp_path / "a", cases({"deeplabv3plus": scores(0.8), "unet": scores(0.7)}), substituted={"CT": "MR"})
    one = line(tmp_path, "xue2020-56")
    assert one.verdict == ledger.SEEN, one.reason
    assert "on the claimed side, and the interval lies beyond the reported +0.030" in one.reason
    assert (
        "A stand-in: MR stands for CT; networks of 0.5 of the full width; 800 of the 58,500 updates of profile paper, "
        in one.reason
    )
    assert "read padding" in one.reason  # what the test leaves out
    assert one.patients == "20 / 3"
    assert one.cohort == "made-up (bench)"
    assert one.parts[0].numbers["mean"] == pytest.approx(0.1, abs=0.01)
    assert one.effect.startswith("+0.1")
    assert "The arms differ" not in one.reason
    runs = read_json(tmp_path / "a" / "runs.json")
    runs["runs"][0]["precision"] = "bf16-mixed"
    write_json(tmp_path / "a" / "runs.json", runs)
    assert "The arms differ in device or precision." in line(tmp_path, "xue2020-56").reason


def test_a_mean_that_lies_beside_its_range_is_shown_as_it_is(tmp_path, few_resamples):
    """DSC plus soft loss minus 1 is 0.5 here, and should be between 0.001 and 0.020."""
    rows = cases({"mmfnet": scores(0.8)}, paper="chen2020")
    publish(tmp_path / "a", rows.assign(soft_dice_loss=1.5 - rows.dsc), profile={"name": "paper"})
    one = line(tmp_path, "chen2020-55")
    assert one.effect == "mean 0.500 (0.500 to 0.500)"
    assert "Mean difference from 0.0105 +0.489" in one.reason


def test_patients_come_before_phantoms_then_enough_seeds_many_patients_and_longer_training(tmp_path, few_resamples):
    arms = ("deeplabv3plus", "unet")
    for name, cohort, n, seeds in (
        ("a", "phantom-ct", 40, 3),
        ("b", "few", 6, 3),
        ("c", "more", 25, 3),
        ("d", "most", 30, 2),
        ("e", "longer", 25, 3),
    ):
        profile = {"name": "bench", "updates": 1800 if cohort == "longer" else 330}
        rows = cases({arm: scores(0.8, n, seeds) for arm in arms}, cohort=cohort)
        publish(tmp_path / name, rows, profile=profile)
    assert line(tmp_path, "xue2020-56").source == "e"


def test_a_phantom_comes_before_too_few_patients_and_before_other_images_in_place_of_the_papers(tmp_path):
    rows = {"deeplabv3plus": 0.8, "unet": 0.7}
    for name, n, substituted in (("few", 6, {}), ("phantom-ct", 40, {}), ("other-images", 25, {"CT": "MR"})):
        given = cases({method: scores(dsc, n) for method, dsc in rows.items()}, cohort=name)
        publish(tmp_path / name, given, substituted=substituted)
    decided = line(tmp_path, "xue2020-56")
    assert decided.source == "phantom-ct"
    assert decided.on_phantom
    assert f"On 25 patients of other-images (bench) it is {decided.verdict}: +0." in decided.reason  # the same scores


def test_a_number_by_itself_is_decided_at_the_size_of_the_paper_only(tmp_path, few_resamples):
    missed = cases({"stepwise": scores(0.5)}, paper="li2018")
    publish(tmp_path / "bench", missed)
    one = line(tmp_path, "li2018-1")
    assert one.verdict == "undecided"
    assert "--profile paper" in ledger.command(one.claim)
    assert "this is profile bench" in one.reason
    publish(tmp_path / "paper", missed.assign(cohort="whole"), profile={"name": "paper"})
    small, whole = (ledger.ledger([s], ["li2018"])[0] for s in ledger.sources(tmp_path))
    assert (small.verdict, whole.verdict) == ("undecided", "refuted"), whole.reason
    assert whole.effect.startswith("mean 0.")


def test_a_claim_with_parts_waits_for_all_of_them_and_a_control_has_a_verdict_of_its_own(tmp_path, few_resamples):
    def published(name: str, **dsc: float):
        given = {method.replace("_", "-"): scores(value, 30, seeds=5) for method, value in dsc.items()}
        publish(tmp_path / name / "x", cases(given, paper="luo2020"))
        return line(tmp_path / name, "luo2020-15")

    one = published("a", unet=0.8, mask_rcnn=0.7, mask_rcnn_enlarged=0.7)
    assert (one.verdict, one.controlled) == ("undecided", "undecided")
    assert "No runs yet for: Mask R-CNN beats FCN-8" in one.reason
    one = published("b", unet=0.8, mask_rcnn=0.7, mask_rcnn_enlarged=0.7, fcn8=0.6)
    assert (one.verdict, one.controlled) == (ledger.SEEN, ledger.SEEN)
    # A baseline that is built with more care does not change what the first test found.
    one = published("c", unet=0.8, mask_rcnn=0.7, mask_rcnn_enlarged=0.9, fcn8=0.6)
    assert (one.verdict, one.controlled) == (ledger.SEEN, "mixed")
    row = ledger.table([one]).iloc[0]
    assert (row["as first listed"], row["after a stronger control"]) == (ledger.SEEN, "mixed")
    assert "enlarged" in row["control"]
    assert published("d", unet=0.6, mask_rcnn=0.7, fcn8=0.8).verdict == ledger.NOT_SEEN


def test_what_is_said_of_the_paper_hangs_on_no_patient_and_no_convention(tmp_path, monkeypatch):
    """Confirmed needs the size of the paper, its kind of images, and a verdict that nobody turns alone."""
    entry = next(each for each in registry.reported("xue2020")["claims"] if each["key"] == "xue2020-56")
    monkeypatch.setattr(registry, "reported", lambda key: {"claims": [entry]})
    for module in ("intervals", "pairs"):
        monkeypatch.setattr(f"npcrepro.statistics.{module}.RESAMPLES", 300)
    random = np.random.default_rng(0)
    better = {"deeplabv3plus": scores(0.8, 25), "unet": scores(0.75, 25)}
    rows = cases(better)
    publish(tmp_path / "a" / "x", rows, profile={"name": "paper"})
    assert line(tmp_path / "a", "xue2020-56").verdict == "confirmed"
    publish(tmp_path / "b" / "x", rows, profile={"name": "paper"}, substituted={"CT": "MR"})
    assert line(tmp_path / "b", "xue2020-56").verdict == ledger.SEEN
    publish(tmp_path / "c" / "x", rows, profile={"name": "paper", "updates": 10})
    assert line(tmp_path / "c", "xue2020-56").verdict == ledger.SEEN
    # One patient lifts the interval to what is printed.
    steady = np.full((25, 3), 0.9)
    other = steady - np.tile(random.choice([0.01, 0.02], 25)[:, None], 3)
    other[3] = 0.6
    publish(tmp_path / "d" / "x", cases({"deeplabv3plus": steady, "unet": other}), profile={"name": "paper"})
    one = line(tmp_path / "d", "xue2020-56")
    assert one.verdict == ledger.SEEN
    assert "It hangs on one choice, one patient left out: P03: weakened then." in one.reason


def test_a_spread_that_takes_many_patients_says_how_many():
    claim = next(one for one in ledger.claims("xue2020") if one.form == "spread")
    fewer, more = (patients_wanted(replace(claim, reported=ratio), {"correlation": 0.5})[0] for ratio in (0.85, 0.99))
    assert 20 < fewer < 1_000 < 10_000 < more


def test_a_claim_that_takes_more_patients_than_there_are_says_how_many(tmp_path):
    random = np.random.default_rng(0)
    noisy = {"deeplabv3plus": scores(0.7, 22, spread=0.1), "unet": scores(0.7, 22, spread=0.1, generator=1)}
    publish(tmp_path / "a" / "x", cases(noisy))
    one = line(tmp_path / "a", "xue2020-56")
    assert one.verdict == ledger.TOO_FEW
    wanted = int(one.reason.partition("It takes ")[2].partition(" ")[0])
    assert 22 < wanted < 400
    assert "as in these records), and the largest cohort with records has 22." in one.reason
    # Nor does anybody know from one training, which varies more than the mean of three.
    publish(tmp_path / "d" / "x", cases({name: values[:, :1] for name, values in noisy.items()}))
    assert line(tmp_path / "d", "xue2020-56").verdict == "undecided"
    # Without records of it nobody knows how much a difference varies, and so how many patients it takes.
    assert line(tmp_path / "a", "xue2020-63").verdict == ledger.NO_EVIDENCE
    # A phantom has as many patients as anybody wants.
    publish(tmp_path / "c" / "x", cases(noisy, cohort="phantom-ct"))
    assert line(tmp_path / "c", "xue2020-56").verdict == "undecided"
    # Where other seeds alone leave it open, more patients would not help.
    seeds = 0.05 * np.array([-1, 0, 1])
    close = {"deeplabv3plus": 0.75 + seeds + random.normal(0, 0.01, (22, 1)), "unet": np.full((22, 3), 0.7)}
    publish(tmp_path / "b" / "x", cases(close))
    assert line(tmp_path / "b", "xue2020-56").verdict == "undecided"


def test_records_of_methods_as_they_were_need_new_runs(tmp_path, monkeypatch):
    publish(tmp_path / "x", cases({"deeplabv3plus": scores(0.8, 25), "unet": scores(0.7, 25)}))
    why = {"unet": "unet is defined otherwise by now than in x: budget was 1.0 and is 2.0."}
    monkeypatch.setattr(source.Published, "outdated", lambda published, paper: why)
    one = line(tmp_path, "xue2020-56")
    assert one.verdict == ledger.NEW_RUNS
    assert "on the claimed side" in one.reason
    assert why["unet"] in one.reason


def test_a_test_that_was_changed_after_it_was_frozen_is_an_error(monkeypatch):
    entry = dict(next(each for each in registry.reported("xue2020")["claims"] if each["key"] == "xue2020-56"))
    monkeypatch.setattr(registry, "reported", lambda key: {"claims": [entry]})
    assert ledger.claims("xue2020")[0].frozen == entry["frozen"]
    was = entry["frozen"]
    for changes in ({"reported": 0.02}, {"test": "Paired"}):
        monkeypatch.setattr(registry, "reported", lambda key, changes=changes: {"claims": [entry | changes]})
        with pytest.raises(
            InputError, match=f"xue2020/paper.yaml: the test of claim xue2020-56 .* not {was}.; .* control"
        ):
            ledger.claims("xue2020")
    monkeypatch.setattr(registry, "reported", lambda key: {"claims": [entry | {"frozen": "new"}]})
    with pytest.raises(InputError, match=f"xue2020/paper.yaml: freeze the test of xue2020-56: frozen: '{was}'"):
        ledger.claims("xue2020")


def test_own_series_are_asked_for_by_a_claim_on_them(tmp_path, few_resamples):
    """PET in the place of an MRI says nothing of three MRI series."""
    rows = cases({"single-encoder": scores(0.8, 25), "unet-3d-t1": scores(0.7, 25)}, paper="chen2020")
    publish(tmp_path / "a" / "x", rows, substituted={"CET1": "PET"})
    assert line(tmp_path / "a", "chen2020-43").source == ""
    publish(tmp_path / "b" / "x", rows, substituted={"GTVp": "GTV"})
    assert line(tmp_path / "b", "chen2020-43").verdict == ledger.NOT_SEEN


def test_what_the_book_says_itself_is_counted_apart(tmp_path):
    lines = ledger.ledger(ledger.sources(tmp_path))
    both = [ledger.counts(lines, by=by).iloc[-1]["all"] for by in ("paper", "book")]
    assert both == [65, 2]
    assert [one.claim.key for one in ledger.own(lines)] == ["luo2020-16", "xue2020-67"]


def slices(method: str, values, by_patient: bool) -> pd.DataFrame:
    """Rows of cases of one slice, DSC ``(patients, slices, seeds)``; every third patient has one slice.

    The first slice of a patient shows two structures, others one.
    """
    frames = []
    for (number, z, seed), value in np.ndenumerate(values):
        if number % 3 or z == 0:
            structures = ("A",) if z else ("A", "B")
            one = cases({method: [[value]]}, "c-patients" if by_patient else "c-slices", structures, "luo2020")
            # Names that end as no rule expects: the patient is in the table, not in the name.
            case = f"P{number:02}_007_{z}"
            frames.append(one.assign(case=case, patient=f"P{number:02}" if by_patient else case, seed=seed))
    return pd.concat(frames, ignore_index=True)


def test_the_ledger_and_the_chapter_print_the_same_inflation(tmp_path, few_resamples):
    random = np.random.default_rng(0)
    high, low = (random.normal(mean, 0.05, (20, 3, 3)) for mean in (0.8, 0.7))
    by_slice, by_patient = slices("unet", high, False), slices("unet", low, True)
    publish(tmp_path / "luo2020-leakage-x-slices", by_slice)
    publish(tmp_path / "luo2020-leakage-x-patients", by_patient)
    (source,) = ledger.sources(tmp_path)
    assert source.patients.patient.nunique() == 20
    one = line(tmp_path, "luo2020-16")
    assert one.verdict == ledger.SEEN, one.reason
    assert (one.cohort, one.patients) == ("c (bench)", "20 / 3")
    assert one.source == "luo2020-leakage-x-slices and luo2020-leakage-x-patients"
    shown = leakage.inflation(by_slice, by_patient).set_index("structure").loc[leakage.ALL]
    numbers = one.parts[0].numbers
    assert shown.inflation == pytest.approx(0.1, abs=0.02)
    assert [numbers[name] for name in ("mean", "low", "high")] == pytest.approx(
        [shown.inflation, shown.low, shown.high]
    )
    # Slices are no evidence for claims on patients.
    assert line(tmp_path, "luo2020-12").verdict == ledger.NO_EVIDENCE


def test_loss_that_falls_is_counted_by_seed(tmp_path):
    for name, falls, verdict in (("a", 0.5, "confirmed"), ("b", 0.01, "refuted")):
        rows = cases({"literal": scores(0.1, 3, seeds=10)}, paper="li2018")
        publish(tmp_path / name / "x", rows, falls, profile={"name": "paper"})
        assert line(tmp_path / name, "li2018-11").verdict == verdict
        publish(tmp_path / name / "small" / "x", rows, falls)
        assert line(tmp_path / name / "small", "li2018-11").verdict == "undecided"


@pytest.mark.parametrize("losses", [[nan], [1.0, 0.5, nan], [inf], [2.0, inf]])
def test_a_training_that_diverged_has_not_fallen(losses):
    run = {"paper": "li2018", "method": "literal", "cohort": "c", "profile": "q", "fold": 0, "stage": "score"}
    runs = {0: losses, 1: [4.0, 3.0]}
    history = pd.DataFrame([run | {"seed": seed, "loss": loss} for seed in runs for loss in runs[seed]])
    assert source._training(history).set_index("seed").loss_fall.to_dict() == {0: 0.0, 1: 0.25}


def test_every_claim_has_a_line_and_a_known_verdict(few_resamples):
    lines = ledger.ledger()
    assert [one.claim.key for one in lines] == [claim.key for key in registry.KEYS for claim in ledger.claims(key)]
    assert {verdict for one in lines for verdict in (one.verdict, one.controlled)} <= set(ledger.VERDICTS)
    for one in lines:
        assert one.reason, one.claim.key
        # A decided claim has numbers; one without evidence says how to get some.
        without = (ledger.NO_EVIDENCE, ledger.NOT_HERE, ledger.TOO_FEW)
        assert one.parts or one.verdict in without, one.claim.key
        assert ledger.command(one.claim) or one.verdict == ledger.NOT_HERE, one.claim.key
        # Runs of the book are smaller than those of the papers.
        assert not {one.verdict, one.controlled} & set(ledger.FIRM), one.claim.key
