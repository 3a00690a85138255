"""Every score and every difference of records, in tables that a reader narrows down."""

import pytest
from record_cases import dsc, publish, rows_of

from npcrepro.book import score_tables, tables
from npcrepro.book.published import PublishedResults, training_times
from npcrepro.findings import observers
from npcrepro.protocol import registry

LUO = registry.load("luo2020")
DSC = {"dsc": "DSC"}


@pytest.fixture
def organs(tmp_path, few_resamples):
    """Six patients; two stages with two seeds, U-Net with one of them. U-Net misses an organ of one patient."""
    rows = []
    for i, patient in enumerate("ABCDEF"):
        for structure, hits, seed in (("BrainStem", 8, 0), ("BrainStem", 4, 1), ("Mandible", 6, 0), ("Mandible", 6, 1)):
            rows += rows_of("two-stage", hits, patient, structure=structure, seed=seed)
        rows += rows_of("unet", 7 * (i > 0), patient) + rows_of("unet", 6, patient, structure="Mandible")
    return PublishedResults(LUO, publish(tmp_path / "organs", rows))


@pytest.fixture
def one_organ(tmp_path):
    """One patient in one region."""
    rows = rows_of("two-stage", 5, "G")[:1] + rows_of("unet", 5, "G")[:1]
    return PublishedResults(LUO, publish(tmp_path / "one", rows))


def row_of(frame, **where):
    for column, value in where.items():
        frame = frame[frame[column] == value]
    (row,) = frame.to_dict("records")
    return row


def test_a_row_for_each_method_structure_and_region(organs):
    frame = score_tables.mean_rows(organs, {"dsc": "DSC", "surfel_hd95_mm": "HD95"})
    # Two methods, the mean and two structures, two regions; two people drew both organs on other scans.
    assert len(frame) == 2 * 3 * 2 + 2
    assert frame.structure.tolist()[:4] == ["mean", "mean", "BrainStem", "BrainStem"]
    first = row_of(frame, method="Proposed", structure="BrainStem", slices="all slices")
    both = (dsc(8) + dsc(4)) / 2
    assert first["DSC"] == f"{both:.2f} ({both:.2f} to {both:.2f})"
    assert first["seeds (sd of DSC)"] == f"2 ({(dsc(8) - dsc(4)) / 2**0.5:.3f})"
    assert first["missed"] == "0 of 12"
    missed = row_of(frame, method="U-Net", structure="BrainStem", slices="slices that show the structure")
    assert (missed["seeds (sd of DSC)"], missed["missed"]) == ("1", "1 of 6")
    # A distance to what was missed is not left out of the patient's mean: the patient is. It is that of all slices.
    assert missed["HD95"] == "2.00 (2.00 to 2.00, n = 5)"
    assert row_of(frame, method="U-Net", structure="mean", slices="all slices")["HD95"] == missed["HD95"]
    people = row_of(frame, method=score_tables.PEOPLE, structure="BrainStem")
    known = observers.agreement().loc["BrainStem"]
    assert (people["DSC"], people["patients"]) == (f"{known.dsc:.2f}", known.n)
    spread = score_tables.mean_rows(organs, DSC, sd=True)
    assert row_of(spread, method="U-Net", structure="Mandible", slices="all slices")["DSC"].startswith("0.75 ± 0.00 (")


def test_the_page_opens_with_the_mean_of_the_first_record(organs, one_organ):
    html = score_tables.means({"large": organs, "small": one_organ}, DSC | {"soft_dice_loss": "Loss_dice"}).data
    for chosen in ("large", "all slices"):
        assert f"<option selected>{chosen}</option>" in html
    assert "<option selected>mean</option>" in score_tables.means({"large": organs}, DSC).data
    assert "large: 6 patients, cohort c, profile p, 1 fold" in html
    assert "small: 1 patient, BrainStem, cohort c" in html
    # What has a single value is no column, and one record has no name.
    alone = score_tables.means({"": one_organ}, DSC).data
    assert 'data-name="structure"' not in alone
    assert "<select" not in alone
    assert ". 1 patient, BrainStem" in alone


def test_a_list_opens_with_what_every_record_has(organs, one_organ):
    """Else the choice of another record would leave no row."""
    html = score_tables.differences({"q": (organs, ()), "r": (one_organ, ())}, DSC).data
    assert "<option selected>q</option>" in html
    assert "<option selected>mean</option>" not in html
    assert "<option selected>all slices</option>" in html


def test_a_metric_that_no_record_has_is_no_column_but_is_named(organs):
    organs._every_case["soft_dice_loss"] = float("nan")
    html = score_tables.means({"": organs.only()}, DSC | {"soft_dice_loss": "Loss_dice"}).data
    assert "In no record of this table: Loss_dice, all slices" in html
    assert 'data-name="Loss_dice' not in html


def test_a_metric_of_all_slices_alone_may_be_the_first(organs):
    assert "seeds (sd of AUC, all slices)" in score_tables.means({"a": organs}, {"auc": "AUC"} | DSC).data


def test_the_mean_is_tested_and_single_structures_are_not(organs):
    frame = score_tables.difference_rows(organs, [("two-stage", "unet")], DSC, {"Proposed": 0.8, "U-Net": 0.7})
    whole = row_of(frame, structure="mean", slices="all slices")
    # From the seed that both have.
    assert whole["mean difference"] == f"{organs.difference('two-stage', 'unet').difference.mean:+.3f}"
    assert whole[tables.P] != "–"
    assert whole["reported"] == "+0.100"
    organ = row_of(frame, structure="Mandible", slices="all slices")
    assert organ["95 % interval"] == "+0.000 to +0.000"
    assert (organ[tables.P], organ["reported"]) == ("–", "–")
    assert len(frame) == 3 * 2


def test_p_is_adjusted_within_a_question(organs, one_organ):
    pair = ("two-stage", "unet")
    html = score_tables.differences({"q": (organs, [pair]), "r": (organs, [pair]), "s": (one_organ, ())}, DSC).data
    assert "p is adjusted within each question and kind of slices" in html
    assert "Where two methods have different seeds" in html
    assert "q and r: 6 patients, cohort c" in html
    assert "<option selected>q</option><option>r</option>" in html
    assert 'data-name="reported"' not in html
    # A single patient has no interval and no test.
    alone = score_tables.differences({"": (one_organ, ())}, DSC).data
    assert "adjusted" not in alone
    assert "<select" not in alone


def test_how_long_runs_took_is_that_of_each_record(organs, one_organ):
    html = training_times({"large": organs, "small": one_organ}).data
    assert html.count("<tr data-") == 4
    assert html.count('data-name="minutes to train">2.0<') == 4
    assert "diverged" not in html
    organs.published.runs[0]["status"] = "diverged"
    assert "large, Proposed, fold 0, seed 0" in training_times({"large": organs}).data
