"""NPC MRI 277 from a small folder in its own layout."""

import numpy as np
import public_sources as sources
import pytest
from public_sources import AGREE, Converted, filled, save, upside_down


@pytest.fixture(scope="module")
def npc(tmp_path_factory):
    """Three patients: one in order, one whose T1 mask runs from head to feet and whose T2 mask lacks a slice, one whose
    T1 mask lacks a slice."""
    root = sources.npc_mri(tmp_path_factory.mktemp("npc"), ("001", "002", "010"))
    patients = root / "data/MRI-Segments"
    mask = sources.npc_series("T1")[1]
    save(upside_down(mask), patients / "002/ROI-T1.nii")
    save(filled(mask, mask.array[:-1]), patients / "010/ROI-T1.nii")
    mask = sources.npc_series("T2")[1]
    save(filled(mask, mask.array[1:]), patients / "002/ROI-T2.nii")
    # macOS leaves these in archives.
    (root / "__MACOSX/data/MRI-Segments/001").mkdir(parents=True)
    (root / "__MACOSX/data/MRI-Segments/001/._ROI-T1.nii").write_bytes(b"x")
    return Converted("npc-mri-277", root, root.parent / f"{root.name}-cohort")


def test_npc_mri_is_on_the_grid_of_the_reference_series_as_published(npc):
    assert npc.cohort.channels == ("T1", "T2", "CET1")
    for channel in range(3):
        array, spacing_mm, geometry = npc.image("NPC_001", channel)
        assert array.shape == (20, 48, 48)
        assert spacing_mm == pytest.approx((6, 4, 4))
        np.testing.assert_allclose(geometry["origin"], sources.GRIDS["T1"].geometry["origin"], atol=1e-3)
    series, mask = sources.npc_series("T1", 1)
    np.testing.assert_array_equal(npc.image("NPC_001")[0], series.array.astype(np.int16))
    np.testing.assert_array_equal(npc.mask("NPC_001", "GTVp"), mask.array > 0.5)
    assert npc.defects == []
    assert npc.cohort.licence == "CC BY 4.0"
    assert "10.1038/s41597-025-05815-x" in npc.cohort.reference


def test_npc_mri_series_are_registered(npc):
    t1, t2, contrast = (npc.image("NPC_001", channel)[0].astype(float).ravel() for channel in range(3))
    inside = npc.image("NPC_001")[0].ravel() > 150
    assert np.corrcoef(t1[inside], contrast[inside])[0, 1] > 0.85
    assert np.corrcoef(t1[inside], t2[inside])[0, 1] < AGREE
    text = next(note for note in npc.record["notes"]["NPC_001"] if note.startswith("T2: moved"))
    moved_mm, turned_deg, dsc = (float(text.split()[i]) for i in (3, 6, -1))
    assert moved_mm == pytest.approx(np.linalg.norm(sources.T2_MOTION_MM), abs=0.7)
    assert turned_deg == pytest.approx(sources.T2_TURN_DEG, abs=0.5)
    assert dsc > 0.85


def test_npc_mri_masks_that_do_not_fit_are_placed_or_reported(npc):
    np.testing.assert_array_equal(npc.label("NPC_002")[0], npc.label("NPC_001")[0])
    assert any("placed by position" in note for note in npc.record["notes"]["NPC_002"])
    assert npc.cohort.case_names == ["NPC_001", "NPC_002"]
    why = "data/MRI-Segments/010/ROI-T1.nii has (19, 48, 48) voxels (z, y, x) for an image of (20, 48, 48)"
    assert npc.record["skipped"]["NPC_010"].startswith(why)
    assert any(line.startswith("NPC_010 is skipped") for line in npc.lines)
    assert npc.lines[-1].startswith("2 cases, 1 skipped")
    (unused,) = [note for note in npc.record["notes"]["NPC_002"] if note.startswith("T2: its mask is not used")]
    assert "(21, 44, 44)" in unused
