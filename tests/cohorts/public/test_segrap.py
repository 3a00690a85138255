"""SegRap2023 and StructSeg 2019 from small folders in their own layouts."""

import json

import numpy as np
from public_sources import block, ct, filled, grid, save

from npcrepro.cohorts.public.segrap import SEGRAP_ORGANS, STRUCTSEG_ORGANS

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
    assert {code for codes in SEGRAP_ORGANS.values() for code in codes} == {*range(1, 55)}


def test_segrap_targets(source, conversion):
    parts = block(grid(), 1).array + block(grid(), 2, corner=(5, 8, 9)).array
    segrap(source, 0, parts, "Task002")
    segrap(source, 1, parts * 3, "Task002")
    save(block(grid()), source / f"{SET}_OneHot_Labels/Task002/segrap_0005.nii.gz")
    done = conversion("segrap2023", "targets")
    assert done.cohort.structures == {"GTVp": (1,), "GTVnd": (2,)}
    np.testing.assert_array_equal(done.label("segrap_0000")[0], parts)
    assert "unknown label value (3" in done.record["skipped"]["segrap_0001"]
    assert done.record["skipped"]["segrap_0005"] == "a label in Task002 and no folder of images"


def test_segrap_from_one_file_an_organ(source, conversion):
    images = source / SET
    for name in ("image", "image_contrast"):
        save(ct(grid(), len(name)), images / f"segrap_0000/{name}.nii.gz")
    save(block(grid(), corner=(0, 0, 0), size=(8, 12, 14)), images / "segrap_0000/Brain.nii.gz")
    save(block(grid(), 1), images / "segrap_0000/Chiasm.nii.gz")
    # The corrected label replaces the first one.
    corrected = block(grid(), 1, corner=(3, 3, 3))
    save(corrected, source / f"{SET}_Update_Labels/segrap_0000/Chiasm.nii.gz")
    done = conversion("segrap2023")
    np.testing.assert_array_equal(done.mask("segrap_0000", "OpticChiasm"), corrected.array == 1)
    assert done.mask("segrap_0000", "Brain").all()
    assert not done.mask("segrap_0000", "Trachea").any()
    assert "Trachea" in done.record["notes"]["segrap_0000"][0]
    assert "Trachea" in done.cohort.cases[0].not_contoured
    assert done.defects == []


def test_segrap_contrast_on_another_grid_is_resampled_and_of_another_place_skipped(source, conversion):
    for number in range(2):
        segrap(source, number, block(grid(), 1).array, "Task002")
    images, coarse = source / SET, grid((4, 6, 7), (6.0, 3.0, 3.0))
    slices = np.array([70, 78, 86, 94], np.int16)[:, None, None] * np.ones((1, 6, 7), np.int16)
    save(filled(coarse, slices), images / "segrap_0000/image_contrast.nii.gz")
    save(grid(origin=(1000.0, 0.0, 0.0)), images / "segrap_0001/image_contrast.nii.gz")
    done = conversion("segrap2023", "targets")
    between = np.array([70, 72, 76, 80, 84, 88, 92, 94])[:, None, None]
    assert (done.image("segrap_0000", 1)[0] == between).all()
    assert done.record["notes"]["segrap_0000"] == ["contrast CT: resampled, as it was on another grid"]
    assert done.defects == []
    assert done.cohort.case_names == ["segrap_0000"]
    lost = "segrap_0001/image_contrast.nii.gz covers no voxel of the first channel: its origin was lost"
    assert lost in done.record["skipped"]["segrap_0001"]


def structseg(source, case, label, task="HaN_OAR"):
    save(ct(grid(), case), source / task / str(case) / "data.nii.gz")
    save(label, source / task / str(case) / "label.nii.gz")


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
    assert sorted(code for (code,) in STRUCTSEG_ORGANS.values()) == [*range(1, 23)]
    np.testing.assert_array_equal(done.label("structseg_10")[0], codes)
    assert done.defects == []


def test_structseg_tasks_are_not_mixed_up(source, conversion):
    structseg(source, 1, block(grid(), 22))
    structseg(source, 2, block(grid(), 1), "Naso_GTV")
    done = conversion("structseg2019", "targets")
    assert done.cohort.case_names == ["structseg_02"]
    assert done.cohort.structures == {"GTVp": (1,)}
    again = conversion("structseg2019", "oars", source / "HaN_OAR", source.parent / "again")
    assert again.cohort.case_names == ["structseg_01"]


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
