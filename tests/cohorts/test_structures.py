"""Codes of structures that overlap."""

import json

import numpy as np
import pytest

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import read_cohort, write_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.cohorts.structures import Coding, mask_of

NAMES = ("GTVp", "CTV2", "BrainStem")


def masks(seed):
    return dict(zip(NAMES, np.random.default_rng(seed).random((3, 2, 4, 5)) < 0.5))


def test_masks_come_back_whatever_overlaps_in_whichever_case():
    coding = Coding(NAMES)
    np.testing.assert_array_equal(coding.encode({"CTV2": np.array([1, 0]), "BrainStem": np.array([0, 1])}), [2, 3])
    assert coding.structures == {"GTVp": (1,), "CTV2": (2,), "BrainStem": (3,)}  # alone: the place among the names
    labels = [coding.encode(masks(seed)) for seed in range(5)]
    for seed, label in enumerate(labels):
        for name, mask in masks(seed).items():
            np.testing.assert_array_equal(mask_of(label, coding.structures, name), mask)
    assert max(label.max() for label in labels) == 7
    np.testing.assert_array_equal(coding.encode(masks(0)), labels[0])  # later cases change no code


EVERY = ((np.arange(512) >> np.arange(9)[:, None]) & 1).reshape(9, 1, 2, 256)  # combination of nine structures


@pytest.mark.parametrize(
    ("drawn", "number_type"),
    [([masks(0), masks(1)], np.uint8), ([{f"s{i}": mask for i, mask in enumerate(EVERY)}], np.uint16)],
)
def test_a_written_cohort_holds_the_masks_and_many_combinations_have_wider_codes(tmp_path, drawn, number_type):
    names, shape = list(drawn[0]), next(iter(drawn[0].values())).shape
    images = np.arange(len(drawn) * np.prod(shape), dtype=np.int16).reshape(-1, 1, *shape)
    cases = [CaseArrays(f"c{i}", f"c{i}", images[i], masks, (3.0, 1.0, 1.0)) for i, masks in enumerate(drawn)]
    cohort = write_cohort(tmp_path / "c", cases, name="c", channels=["CT"], structures=names)
    assert check(tmp_path / "c") == []
    assert cohort == read_cohort(tmp_path / "c")
    prepared = prepare(cohort, tmp_path / "p")
    assert prepared.structures == cohort.structures
    for case in cases:
        label = prepared.case(case.name).label
        assert label.dtype == number_type
        for name, mask in case.label.items():
            np.testing.assert_array_equal(mask_of(label, cohort.structures, name), mask)
    header = json.loads((tmp_path / "c" / "dataset.json").read_text())
    assert len(header["regions_class_order"]) == len(names)
    assert header["labels"]["background"] == 0


def test_bad_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="mask of 'GTV', which is not one of the structures GTVp, CTV2, BrainStem"):
        Coding(NAMES).encode({"GTV": np.ones(2)})
    with pytest.raises(InputError, match=r"shapes \{'GTVp': \(2,\), 'CTV2': \(3,\)\}"):
        Coding(NAMES).encode({"GTVp": np.ones(2), "CTV2": np.ones(3)})
    with pytest.raises(InputError, match="of no structure"):
        Coding(NAMES).encode({})
    names = [f"s{i}" for i in range(17)]
    every = (np.arange(2**17) >> np.arange(17)[:, None]) & 1
    with pytest.raises(InputError, match="more than 65535 combinations"):
        Coding(names).encode(dict(zip(names, every)))
    case = CaseArrays("c", "c", np.ones((1, 1, 2, 2), np.int16), np.ones((1, 2, 2), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="case c: a label image without codes"):
        write_cohort(tmp_path / "c", [case], name="c", channels=["CT"], structures=["GTVp"])
    assert not (tmp_path / "c").exists()
