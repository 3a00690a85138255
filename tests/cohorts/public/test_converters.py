"""Each public set from a small folder in its own layout."""

import json
from dataclasses import replace

import numpy as np
import public_sources as sources
import pytest
from public_sources import AGREE, block, ct, filled, grid, save, structseg

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


def han_seg(source, case, organs, image=None):
    folder = source / f"HaN-Seg/set_1/case_{case:02d}"
    save(image or ct(grid(), case), folder / f"{folder.name}_IMG_CT.nrrd")
    for organ, mask in organs.items():
        save(mask, folder / f"{folder.name}_OAR_{organ}.seg.nrrd")
    return folder


def test_han_seg_takes_organs_by_name(source, conversion):
    spinal, lips = block(grid()), block(grid(), corner=(3, 4, 5))
    han_seg(source, 1, {"A_Carotid_L": block(grid(), corner=(0, 0, 0)), "SpinalCord": spinal, "Lips": lips})
    # Without the first organ, the codes by order of files would shift.
    folder = han_seg(source, 2, {"SpinalCord": spinal, "Nose": lips})
    (folder.parent / "case_03").mkdir()
    done = conversion("han-seg")
    assert done.cohort.case_names == ["case_01", "case_02"]
    assert len(done.cohort.structures) == 30
    for case in done.cohort.case_names:
        np.testing.assert_array_equal(done.mask(case, "SpinalCord"), spinal.array == 1)
    np.testing.assert_array_equal(done.mask("case_01", "Lips"), lips.array == 1)
    assert not done.mask("case_02", "A_Carotid_L").any()
    assert "A_Carotid_L" in done.case("case_02").not_contoured
    missing, unknown = done.record["notes"]["case_02"]
    assert missing.startswith("not contoured: A_Carotid_L, ")
    assert unknown == "left out, as the set does not list them: Nose"
    assert "case_03_IMG_CT.nrrd" in done.record["skipped"]["case_03"]
    assert done.defects == []
    assert (done.cohort.licence, done.cohort.publishable) == ("CC BY-NC-ND 4.0", False)


def test_han_seg_masks_may_be_cropped_and_those_of_another_place_are_skipped(source, conversion):
    whole = block(grid(), corner=(2, 3, 4), size=(2, 3, 4))
    x, y, z = whole.geometry["origin"]
    cropped = grid((4, 5, 6), origin=(x + 3 * 1.5, y + 2 * 1.5, z + 1 * 3.0))
    han_seg(source, 1, {"Lips": filled(cropped, whole.array[1:5, 2:7, 3:9])})
    far = filled(grid(origin=(1000.0, 0.0, 0.0)), whole.array)
    han_seg(source, 2, {"Lips": far})
    # Nothing is marked: nothing is lost.
    han_seg(source, 3, {"Lips": filled(far, np.zeros_like(far.array))})
    done = conversion("han-seg")
    assert done.cohort.case_names == ["case_01", "case_03"]
    np.testing.assert_array_equal(done.mask("case_01", "Lips"), whole.array == 1)
    assert "voxels, of which none is left on the grid of the image: its origin" in done.record["skipped"]["case_02"]


def test_han_seg_registers_the_mr(source, conversion):
    image, mask = sources.npc_series("T1")
    series = sources.npc_series("T2")[0]
    # Another scanner, other coordinates.
    origin = np.add(series.geometry["origin"], [500, -200, 900]).tolist()
    series = replace(series, geometry=series.geometry | {"origin": origin})
    folder = han_seg(source, 1, {"Lips": filled(mask, mask.array.astype(np.uint8))}, image)
    save(series, folder / "case_01_IMG_MR_T1.nrrd")
    done = conversion("han-seg", "ct-mr")
    assert done.cohort.channels == ("CT", "T1")
    first, second = (done.image("case_01", channel)[0].ravel() for channel in range(2))
    assert np.corrcoef(first[first > 150], second[first > 150])[0, 1] < AGREE
    assert done.defects == []


def deepmind(source, part, case, organs, observer="oncologist"):
    folder = source / "nrrds" / part / observer / case
    save(ct(grid(), sum(case.encode())), folder / "CT_IMAGE.nrrd")
    for organ, mask in organs.items():
        save(mask, folder / f"segmentations/{organ}.nrrd")
    return folder


def test_deepmind_reads_both_spellings(source, conversion):
    mask = block(grid())
    deepmind(source, "test", "0522c0001", {"Parotid-Lt": mask, "Spinal-Cord": mask})
    deepmind(source, "validation", "0522c0002", {"Optic_Nerve_Rt": mask, "Brainstem": mask})
    deepmind(source, "test", "0522c0001", {"Mandible": mask}, "radiographer")
    done = conversion("deepmind-tcia")
    assert done.cohort.case_names == ["0522c0001", "0522c0002"]
    assert len(done.cohort.structures) == 21
    for case, organ in [("0522c0001", "Parotid_L"), ("0522c0001", "SpinalCord"), ("0522c0002", "OpticNerve_R")]:
        np.testing.assert_array_equal(done.mask(case, organ), mask.array == 1)
    assert not done.mask("0522c0001", "Mandible").any()
    assert done.defects == []
    other = conversion("deepmind-tcia", "radiographer", source, source.parent / "other")
    np.testing.assert_array_equal(other.mask("0522c0001", "Mandible"), mask.array == 1)


def openkbp(source, patient, voxels, part="train"):
    """``voxels``: name to {(front to back, right to left, head to feet): value}."""
    folder = source / f"open-kbp-main/provided-data/{part}-pats/pt_{patient}"
    folder.mkdir(parents=True)
    for name, listed in voxels.items():
        rows = [f"{np.ravel_multi_index(place, (128, 128, 128))},{value}" for place, value in listed.items()]
        (folder / f"{name}.csv").write_text("\n".join([",data", *rows, ""]))
    (folder / "voxel_dimensions.csv").write_text("3.5\n3.6\n2.0\n")
    return folder


def test_openkbp_axes_and_hu(source, conversion):
    # Near the front, the right side and the head.
    place = (10, 20, 30)
    openkbp(source, 1, {"ct": {place: 1040.0}, "RightParotid": {place: ""}, "Mandible": {place: ""}})
    openkbp(source, 241, {"ct": {place: 999.0}, "Brainstem": {(0, 0, 127): ""}}, "test")
    done = conversion("openkbp")
    assert done.cohort.case_names == ["KBP_001", "KBP_241"]
    array, spacing_mm, geometry = done.image("KBP_001")
    assert array.dtype == np.int16
    assert np.argwhere(array != -1000).tolist() == [[127 - 30, 10, 20]]
    assert array[97, 10, 20] == 40
    assert spacing_mm == pytest.approx((2.0, 3.5, 3.6))
    assert geometry["direction"] == sources.IDENTITY
    np.testing.assert_allclose(done.centre("KBP_001", "Parotid_R"), (20 * 3.6, 10 * 3.5, 97 * 2.0), atol=1e-3)
    np.testing.assert_array_equal(done.mask("KBP_001", "Mandible"), done.mask("KBP_001", "Parotid_R"))
    assert np.argwhere(done.mask("KBP_241", "BrainStem")).tolist() == [[0, 0, 0]]
    missing = ("BrainStem", "SpinalCord", "Parotid_L", "Esophagus", "Larynx")
    assert done.record["notes"]["KBP_001"] == [f"not contoured: {', '.join(missing)}"]
    assert done.cohort.cases[0].not_contoured == missing
    assert done.defects == []
    assert done.cohort.licence == "MIT"


def test_openkbp_targets_and_broken_tables(source, conversion):
    place = (64, 64, 64)
    openkbp(source, 3, {"ct": {place: 1000}, "PTV70": {place: ""}, "PTV56": {place: ""}})
    broken = openkbp(source, 4, {"ct": {place: 1000}, "PTV70": {place: ""}})
    (broken / "PTV70.csv").write_text(f",data\n{128**3},\n")
    missing = openkbp(source, 5, {"PTV70": {place: ""}})
    lost = openkbp(source, 6, {"ct": {place: 1000}, "PTV70": {place: ""}})
    (lost / "voxel_dimensions.csv").write_text("3.5\n3.6\n")
    openkbp(source, 7, {"ct": {place: 1000}, "Mandible": {place: ""}})
    done = conversion("openkbp", "targets")
    assert done.cohort.case_names == ["KBP_003"]
    assert done.record["notes"]["KBP_003"] == ["not contoured: PTV63"]
    assert done.cohort.cases[0].not_contoured == ()
    skipped = done.record["skipped"]
    assert "PTV70.csv is not a table of voxel and value" in skipped["KBP_004"]
    assert f"{missing.name}/ct.csv" in skipped["KBP_005"]
    assert "does not hold three voxel sizes" in skipped["KBP_006"]
    assert "none of PTV70, PTV63, PTV56 was contoured" in skipped["KBP_007"]
