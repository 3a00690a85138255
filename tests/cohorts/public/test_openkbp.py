"""OpenKBP from a small folder in its own layout."""

import numpy as np
import public_sources as sources
import pytest


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
