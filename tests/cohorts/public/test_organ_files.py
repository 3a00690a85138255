"""HaN-Seg, DeepMind TCIA and OpenKBP from small folders in their own layouts."""

from dataclasses import replace

import numpy as np
import public_sources as sources
import pytest
from public_sources import AGREE, block, ct, filled, grid, save


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
