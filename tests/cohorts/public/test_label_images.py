"""SegRap2023, StructSeg 2019, LNCTVSeg and HNTS-MRG 2024 from small folders in their own layouts."""

import json

import numpy as np
from public_sources import block, ct, filled, grid, save, structseg

from npcrepro.cohorts import public
from npcrepro.cohorts.structures import as_codes

SET = "SegRap2023_Training_Set_120cases"


def segrap(source, case, label, task="Task001"):
    for number, name in enumerate(("image", "image_contrast")):
        save(ct(grid(), 2 * case + number), source / f"{SET}/segrap_{case:04d}/{name}.nii.gz")
    save(filled(grid(), label), source / f"{SET}_OneHot_Labels/{task}/segrap_{case:04d}.nii.gz")


def test_segrap_unites_the_parts(source, conversion):
    parts = np.zeros((8, 12, 14), np.uint8)
    parts.ravel()[:55] = np.arange(55)
    segrap(source, 0, parts)
    segrap(source, 7, parts)
    done = conversion("segrap2023")
    assert done.cohort.channels == ("CT", "CECT")
    assert done.cohort.case_names == ["segrap_0000", "segrap_0007"]
    assert len(done.cohort.structures) == 45
    assert done.defects == []
    expected = {
        **{"Brain": {*range(1, 10)}, "TemporalLobe_R": {5, 7}, "Hippocampus_L": {8, 6}, "Eye_R": {11, 13}},
        **{"Lens_R": {13}, "MiddleEar_L": {16, 18, 20, 24, 28, 30}, "MiddleEar_R": {17, 19, 21, 25, 29, 31}},
        **{"IAC_R": {19}, "TympanicCavity_R": {21, 23}, "VestibulSemi_L": {24, 26}, "Cochlea_R": {29}},
        **{"ETbone_R": {31, 33}, "Mandible_R": {37}, "TMjoint_L": {44}, "Larynx": {48, 49, 50, 51}},
        **{"PharynxConst": {51, 52}, "Trachea": {54}, "OpticNerve_R": {15}, "Mastoid_R": {43}},
    }
    for organ, codes in expected.items():
        assert set(parts[done.mask("segrap_0000", organ)].tolist()) == codes, organ
    published = public.find("segrap2023").variants["oars"].structures.values()
    assert {code for codes in published for code in as_codes(codes)} == {*range(1, 55)}


def test_structseg(source, conversion):
    codes = np.zeros((8, 12, 14), np.uint8)
    codes.ravel()[:23] = np.arange(23)
    for case in (1, 2, 10):
        structseg(source, case, filled(grid(), codes.astype(np.float32)))
    done = conversion("structseg2019")
    assert done.cohort.case_names == ["structseg_01", "structseg_02", "structseg_10"]
    assert done.cohort.structures["Mandible_R"] == (22,)
    assert done.cohort.structures["Parotid_L"] == (12,)
    assert done.cohort.structures["SpinalCord"] == (20,)
    assert sorted(public.find("structseg2019").variants["oars"].structures.values()) == [*range(1, 23)]
    np.testing.assert_array_equal(done.label("structseg_10")[0], codes)
    assert done.defects == []


def test_labels_that_do_not_fit_are_skipped_or_noted(source, conversion):
    elsewhere = filled(grid(origin=(50, 50, 50)), block(grid(), 1).array)
    for case, label in enumerate((elsewhere, block(grid((7, 12, 14)), 1), elsewhere), 1):
        structseg(source, case, label)
    (source / "HaN_OAR/3/data.nii.gz").unlink()
    done = conversion("structseg2019")
    assert done.cohort.case_names == ["structseg_01"]
    np.testing.assert_array_equal(done.label("structseg_01")[0], elsewhere.array)
    assert "voxels taken in order" in done.record["notes"]["structseg_01"][0]
    assert "(7, 12, 14) voxels (z, y, x) for an image of (8, 12, 14)" in done.record["skipped"]["structseg_02"]
    assert "HaN_OAR/3/data.nii.gz" in done.record["skipped"]["structseg_03"]
    assert str(source) not in json.dumps(done.record)
    assert done.defects == []


def lnctv(source, cohort, case, numbers):
    part = "Tr" if cohort == "Internal_Cohort" else "Ts"
    folder = source / "LNCTVSeg-DataSet" / cohort
    for number in numbers:
        image = ct(grid(), sum(f"{cohort}{case}{number}".encode()))
        save(image, folder / f"images{part}/{case}_{number:04d}.nii.gz")
    save(block(grid(), 5), folder / f"labels{part}/{case}.nii.gz")


def test_lnctv_every_ct_is_a_case_of_its_patient_or_pairs_are(source, conversion):
    lnctv(source, "Internal_Cohort", "p_1", (0, 1))
    lnctv(source, "Testing_Cohort_2", "p_1", (0,))
    lnctv(source, "Testing_Cohort_2", "p_2", (1,))
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
    done = conversion("lnctvseg", "pairs", source, source.parent / "pairs")
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
