"""LNCTVSeg and HNTS-MRG 2024 from small folders in their own layouts."""

import numpy as np
import pytest
from public_sources import block, ct, grid, save


def lnctv(source, cohort, case, numbers, label=None):
    part = "Tr" if cohort == "Internal_Cohort" else "Ts"
    folder = source / "LNCTVSeg-DataSet" / cohort
    for number in numbers:
        image = ct(grid(), sum(f"{cohort}{case}{number}".encode()))
        save(image, folder / f"images{part}/{case}_{number:04d}.nii.gz")
    save(label or block(grid(), 5), folder / f"labels{part}/{case}.nii.gz")


@pytest.fixture
def nodes(source):
    lnctv(source, "Internal_Cohort", "p_1", (0, 1))
    lnctv(source, "Testing_Cohort_2", "p_1", (0,))
    lnctv(source, "Testing_Cohort_2", "p_2", (1,))
    return source


def test_lnctv_every_ct_is_a_case_of_its_patient_or_pairs_are(nodes, conversion):
    done = conversion("lnctvseg")
    assert {case.name: case.patient for case in done.cohort.cases} == {
        "Internal_p_1_CT": "Internal_p_1",
        "Internal_p_1_CECT": "Internal_p_1",
        "Testing_2_p_1_CT": "Testing_2_p_1",
        "Testing_2_p_2_CECT": "Testing_2_p_2",
    }
    assert done.cohort.structures["CTVn_Ib_R"] == (5,)
    assert done.mask("Testing_2_p_2_CECT", "CTVn_Ib_R").sum() == 24
    assert done.defects == []
    done = conversion("lnctvseg", "pairs", nodes, nodes.parent / "pairs")
    assert done.cohort.case_names == ["Internal_p_1"]
    assert done.cohort.channels == ("CT", "CECT")
    plain, contrast = (done.image("Internal_p_1", channel)[0] for channel in range(2))
    np.testing.assert_array_equal(plain, ct(grid(), sum(b"Internal_Cohortp_10")).array)
    np.testing.assert_array_equal(contrast, ct(grid(), sum(b"Internal_Cohortp_11")).array)
    assert done.record["skipped"]["Testing_2_p_2"] == "one CT only (CECT); the variant 'single' takes it"
    assert done.defects == []


def hnts(source, case, when, label):
    folder = source / f"HNTSMRG24_train/{case}/{when}RT"
    save(ct(grid(), case), folder / f"{case}_{when}RT_T2.nii.gz")
    save(label, folder / f"{case}_{when}RT_mask.nii.gz")
    save(ct(grid(), case), folder / f"{case}_{when}RT_T2_registered.nii.gz")


def test_hnts_mrg(source, conversion):
    for case in (2, 21):
        hnts(source, case, "pre", block(grid(), 2))
        hnts(source, case, "mid", block(grid(), 0 if case == 21 else 1))
    hnts(source, 150, "pre", block(grid(), 1))
    before = conversion("hnts-mrg-2024")
    assert before.cohort.case_names == ["HNTS_150", "HNTS_2", "HNTS_21"]
    assert before.mask("HNTS_2", "GTVnd").sum() == 24
    assert before.defects == []
    assert not before.cohort.publishable
    during = conversion("hnts-mrg-2024", "mid", source, source.parent / "mid")
    assert during.cohort.case_names == ["HNTS_2", "HNTS_21"]
    assert during.mask("HNTS_2", "GTVp").sum() == 24
    assert during.record["notes"]["HNTS_21"] == ["empty mask: nothing of the tumour is left"]
    assert "150_midRT_T2.nii.gz" in during.record["skipped"]["HNTS_150"]
    (defect,) = during.defects
    assert "HNTS_21" in defect
    assert "empty label" in defect
