"""The controls of the explorer without a notebook around them."""

from dataclasses import replace

import pytest

from npcrepro.base.errors import InputError
from npcrepro.book.build.notebooks import WIDGET_TYPE
from npcrepro.book.explorer import picture, widget


@pytest.fixture
def explorer(two_methods):
    return widget.Explorer(two_methods)


def test_numbers_at_a_half_are_those_of_the_record(two_methods, explorer):
    assert list(explorer.case.found) == ["stepwise", "linear-scores"]
    rows = picture.numbers(explorer.case, explorer.view)
    for record, mine in zip(two_methods.found[:2], rows.itertuples(), strict=True):
        cases = record.cases
        row = cases[(cases.case == explorer.case.name) & (cases.region == "all_slices")].iloc[0]
        expected = [row.dsc, row.surfel_hd95_mm, row.predicted_ml]
        assert [mine.dsc, mine.hd95_mm, mine.volume_ml] == pytest.approx(expected, nan_ok=True)
    with pytest.raises(InputError, match="did you mean 'GTVp'"):
        picture.read_case(two_methods, explorer.case.name, "GTV")


def test_a_control_that_moves_changes_the_picture_and_the_numbers(explorer):
    before = explorer._image.value
    explorer.mode.value = "errors"
    explorer.to_worst_slice()
    assert explorer._image.value != before
    assert "missed (FN)" in explorer._table.value
    explorer.plane.value = "coronal"
    assert explorer.slice.max == explorer.case.reference.shape[1]
    explorer.threshold.value = 0.21
    assert "threshold 0.21" in explorer._table.value
    still = explorer.still()
    assert "<span>Threshold <b>0.21</b></span>" in still
    assert f"<span>Case <b>{explorer.case_name.value}</b></span>" in still
    assert '<img alt="' in still


def test_a_cohort_that_must_not_be_shown_is_not(two_methods, explorer, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda content, raw=False: shown.append(content))
    explorer._ipython_display_()
    assert shown[0][WIDGET_TYPE]["model_id"] == explorer.widget.model_id
    monkeypatch.setattr(two_methods, "source", replace(two_methods.source, publishable=False, licence=""))
    explorer._ipython_display_()
    assert "may not be published" in shown[-1].data
