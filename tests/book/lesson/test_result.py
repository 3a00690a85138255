"""A trained network on patients."""

from types import SimpleNamespace

import numpy as np
import pytest
from core_cases import case_arrays, finish, write_tiny

from npcrepro.book.html import viewer, volume_files
from npcrepro.book.lesson import result
from npcrepro.book.lesson.lesson import Lesson
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.protocol.settings import Settings
from npcrepro.runs.validated import Choice


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run of a T2 cohort, and its network on the sample slices, as published weights would be."""
    root = tmp_path_factory.mktemp("result")
    write_tiny(root / "c", [case_arrays(f"P{i}", i) for i in range(4)], channels=("T2",))
    (record,), _ = finish(root / "c", root / "runs")
    page = result.of_page(record, prepare(read_cohort(root / "c"), root / "runs" / "prepared"), "tiny")
    return page, result.on_samples(record, "sample-t2", root / "runs")


def test_a_network_sees_patients_that_it_was_not_trained_for(trained):
    _, samples = trained
    assert len(samples.cases) == 4
    scores = {place: np.nan_to_num(samples.dsc(case)) for place, case in samples.places.items()}
    assert list(scores) == ["Best", "Median", "Worst"]
    assert scores["Best"] >= scores["Median"] >= scores["Worst"]
    assert samples.where.endswith("on the patients of sample-t2, none of whom trained it")
    page = result.patients(samples)
    assert page.count("<svg") == 12
    assert "reference of" in page


def test_patients_to_browse_are_those_of_the_figure_at_the_threshold_of_the_method(trained, monkeypatch):
    _, samples = trained
    shown = []
    monkeypatch.setattr(viewer, "show", lambda *given: shown.append(given))
    Lesson.browse(SimpleNamespace(trained=samples, settings=Settings()), limits=(0, 9))
    ((patients, colours, thresholds),) = shown
    title = samples.record.method.title
    assert {one.about["place"]: one.name for one in patients} == samples.places
    assert (list(colours), thresholds) == (["Reference", title], {title: 0.5})
    for one in patients:
        assert np.array_equal(one.probabilities[title]["GTVp"], samples.probabilities[one.name][0])
        assert one.limits == (0, 9)


def test_patients_of_several_structures_have_the_mean_by_which_they_are_ranked(trained, monkeypatch):
    _, samples = trained
    shown = []
    monkeypatch.setattr(viewer, "show", lambda *given: shown.append(given))
    monkeypatch.setattr(volume_files, "patient_of", lambda *given, **more: volume_files.Patient(given[1], {}, {}, ()))
    several = SimpleNamespace(
        structures=("Cord", "Brain"), record=samples.record, places=samples.places, cohort=samples.cohort,
        probabilities=samples.probabilities, dsc=lambda case: 0.625,
    )  # fmt: skip
    Lesson.browse(SimpleNamespace(trained=several, settings=Settings()))
    assert {one.about["DSC, mean of 2 structures"] for one in shown[0][0]} == {"0.62"}


def test_pieces_that_a_prediction_drops_are_not_shown(trained, monkeypatch):
    _, samples = trained
    case, name = samples.cases[0], samples.structures[0]
    probability = np.zeros_like(samples.probabilities[case])
    probability[0, 0, 0, :5] = 1, 1, 0, 1, 0
    monkeypatch.setitem(samples.probabilities, case, probability)
    assert samples.label(case).sum() == 3
    choice = Choice(0.5, 0.8, 0.8, 0.9, True, 3)
    monkeypatch.setattr(result, "read_choices", lambda path: {name: choice})
    assert samples.label(case).sum() == 2


def test_inner_maps_are_shown_on_the_slice_with_most_tumour(trained):
    _, samples = trained
    seen = []

    def maps(trained, case, z):
        seen.append((case, z))
        return np.zeros((8, 8)), np.eye(8, dtype=bool), {"coarse": np.ones((2, 2))}

    page = result.inner_maps(samples, maps)
    assert seen == [(samples.places["Best"], 0)]
    assert 'aria-label="coarse, slice 1 of ' in page


def test_errors_have_their_colours():
    one = np.array([[True, True, False, False]])
    other = np.array([[True, False, True, False]])
    pixels = result._with_errors(np.zeros((1, 4), np.uint8), {"GTVp": one}, {"GTVp": other})[0]
    # Green where both are, sky blue where the reference alone is, vermilion where the network alone is.
    assert [int(pixel.argmax()) for pixel in pixels[:3]] == [1, 2, 0]
    assert not pixels[3].any()
