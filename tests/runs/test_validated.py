"""What the patients for validation choose: the threshold of each structure, and its largest piece."""

import json
from dataclasses import replace

import numpy as np
import pytest
from bright_network import bright_paper
from core_cases import case_arrays, finish, write_tiny

from npcrepro.base.files import read_json
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.prepared import prepare
from npcrepro.metrics.curves import count_scores
from npcrepro.runs import training
from npcrepro.runs.predict import predict
from npcrepro.runs.validated import Choice, at_threshold, choose_threshold, validate


def scores(probabilities, reference):
    return count_scores(np.array(probabilities), np.array(reference))


# Thresholds


def test_the_mean_over_patients_decides_and_not_the_voxels_of_all():
    """At 0.2 the large patient is better by a little, at 0.6 two small ones by much."""
    large = scores([0.7] * 90 + [0.3] * 10, [1] * 100)
    small = scores([0.7, 0.3, 0.3], [1, 0, 0])
    assert choose_threshold([large, small, small], (0.2, 0.6)) == (0.6, pytest.approx((2 * 90 / 190 + 1 + 1) / 3))
    assert choose_threshold([large], (0.2, 0.6)) == (0.2, 1)
    # Of equals the nearest to one half, whatever their order.
    assert choose_threshold([small], (0.9, 0.35, 0.6)) == (0.6, 1)
    assert choose_threshold([small], (0.6, 0.4)) == choose_threshold([small], (0.4, 0.6)) == (0.4, 1)
    assert choose_threshold([large], (0.05, 0.25, 0.3)) == (0.3, 1)


def test_a_patient_without_the_structure_counts_where_nothing_is_found_and_alone_chooses_nothing():
    without = scores([0.3, 0.1], [0, 0])
    patient = scores([0.45, 0.25], [1, 1])
    assert choose_threshold([patient], (0.2, 0.4)) == (0.2, 1)
    assert choose_threshold([patient, without], (0.2, 0.4)) == (0.4, pytest.approx((2 / 3 + 1) / 2))
    assert choose_threshold([without]) == choose_threshold([]) == (None, None)


def test_bytes_are_cut_where_they_were_counted():
    codes = np.arange(256, dtype=np.uint8)
    reference = codes % 3 == 0
    counted = count_scores(codes, reference)
    for threshold in (0.2, 0.5, 0.6, 51 / 255, 1.0):
        choice = Choice(threshold, 0.8, 0.8, 0.9, False, 3)
        mask = at_threshold(codes, choice)
        counts = counted.at(threshold)
        assert (counts.tp, counts.fp) == ((mask & reference).sum(), (mask & ~reference).sum())
        assert counts.tp + counts.fn == reference.sum()
        np.testing.assert_array_equal(mask, at_threshold(codes / 255, choice))


# Whole cases


def test_the_largest_piece_is_kept_where_they_gain_by_it_and_the_method_asks(tmp_path):
    """Patient A has two cases of one organ each way, B one; nobody drew the chiasm in B."""
    cases = []
    for name, columns in (("A1", 4), ("A2", 2), ("B", 4)):
        label = np.zeros((2, 6, 8), np.uint8)
        label[:, 1:3, :columns] = 1
        label[0, 4:, :2] = 2
        missing = ("Chiasm",) if name == "B" else ()
        image = np.zeros((1, 2, 6, 8), np.int16)
        cases.append(CaseArrays(name, name[0], image, label, (3.0, 1.0, 1.0), not_contoured=missing))
    cohort = prepare(write_tiny(tmp_path / "c", cases, structures={"BrainStem": 1, "Chiasm": 2}), tmp_path / "p")
    # The brain stem has a stray piece; the chiasm is found in two pieces.
    segmented = []
    for name in ("A1", "A2", "B"):
        label = np.array(cohort.case(name).label)
        label[:, 0, 7] = 1
        label[0, 4:, 2:6] = 2
        label[0, 4:, 3] = 0
        label[0, 4:, 1] = 0
        segmented.append((name, label, np.stack([label == 1, label == 2]).astype(np.uint8) * 255))
    for asked in (True, False):
        stem, chiasm = validate(segmented, cohort, ("BrainStem", "Chiasm"), asked).values()
        assert (stem.largest_component, chiasm.largest_component) == (asked, False)
        assert (stem.patients, chiasm.patients) == (2, 1)
        # A: 16 + 8 voxels, and 2 stray ones in each case. B: 16 and 2.
        assert stem.dsc_as_decided == pytest.approx((2 * 24 / (2 * 24 + 4) + 2 * 16 / (2 * 16 + 2)) / 2)
        assert stem.dsc_of_largest == 1
        assert chiasm.dsc_of_largest == 0 < chiasm.dsc_as_decided


# Runs


def paper_of(**changes):
    return bright_paper({"name": "bright", **changes})


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    """Four patients with a bright disc each, and a bright spot far from it."""
    cases = [case_arrays(f"P{i}", i) for i in range(4)]
    for case in cases:
        case.image[:, 0, :2, :2] = 500
    return write_tiny(tmp_path_factory.mktemp("spotted") / "c", cases).root


def one_run(root, runs, **changes):
    (record,), _ = finish(root, runs, paper_of(**changes), methods=("bright",))
    return record


def test_a_run_keeps_the_largest_piece_and_is_scored_at_the_threshold_of_its_validation(spotted, tmp_path):
    plain = one_run(spotted, tmp_path / "runs")
    kept = one_run(spotted, tmp_path / "runs", largest_component=True)
    strict = one_run(spotted, tmp_path / "runs", threshold=0.995)
    assert plain.folder.parent == kept.folder.parent
    assert plain.folder != kept.folder
    chosen = read_json(kept.folder / "validated.json")["structures"]["GTVp"]
    assert (chosen["largest_component"], chosen["threshold"], chosen["patients"]) == (True, 0.5, 1)
    rows = {record: record.cases.set_index("region") for record in (plain, kept, strict)}
    whole = {record: rows[record].loc["all_slices"] for record in rows}
    size = whole[kept].tp
    with_spot = 2 * size / (2 * size + 4)
    assert [found.components for found in whole.values()] == [2, 1, 0]
    assert [found.dsc for found in whole.values()] == pytest.approx([with_spot, 1, 0])
    # Where the threshold of the method finds nothing, that of the validation does; the spot counts in all slices alone.
    assert rows[strict].validated_threshold.tolist() == [0.5] * 3
    assert rows[strict].dsc_validated.tolist() == pytest.approx([with_spot, 1, 1])
    assert rows[kept].dsc_validated.tolist() == [1, 1, 1]
    label, _ = kept.prediction("P0")
    np.testing.assert_array_equal(label, case_arrays("P0").label)


def test_predict_keeps_what_the_run_keeps(spotted, tmp_path):
    for asked in (True, False):
        record = one_run(spotted, tmp_path / "runs", largest_component=asked)
        predict(record.folder, spotted, tmp_path / f"{asked}", "cpu", lambda line: None)
        label, *_ = read_image(tmp_path / f"{asked}" / "P0.nii.gz")
        np.testing.assert_array_equal(label, record.prediction("P0")[0])
    (record.folder / "validated.json").unlink()
    predict(record.folder, spotted, tmp_path / "old", "cpu", lambda line: None)


def test_scores_made_again_keep_the_choices_and_an_old_run_has_none(spotted, tmp_path, monkeypatch):
    record = one_run(spotted, tmp_path)
    before = (record.folder / "cases.csv").read_bytes()
    monkeypatch.setattr(training, "train", None)

    def again():
        (record.folder / "provenance.json").write_text(json.dumps(record.provenance | {"scoring_sha256": "0"}))
        return one_run(spotted, tmp_path)

    assert (again().folder / "cases.csv").read_bytes() == before
    (record.folder / "validated.json").unlink()
    cases = again().cases
    assert cases.dsc_validated.isna().all()
    assert cases.validated_threshold.isna().all()
    assert cases.dsc.tolist() == record.cases.dsc.tolist()


def test_without_a_patient_for_validation_nothing_is_chosen(spotted, tmp_path):
    paper = replace(paper_of(largest_component=True), split={"kind": "k-fold", "folds": 4, "validation": 0})
    (record,), _ = finish(spotted, tmp_path, paper, methods=("bright",))
    chosen = read_json(record.folder / "validated.json")["structures"]["GTVp"]
    assert (chosen["threshold"], chosen["largest_component"], chosen["patients"]) == (None, False, 0)
    assert record.cases.dsc_validated.isna().all()
    assert record.cases.components[0] == 2
