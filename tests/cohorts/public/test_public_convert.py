"""Each set from a small folder in its own layout to a cohort without defects."""

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import public_sources as sources
import pytest
import SimpleITK as sitk
from public_sources import block, centre_mm, ct, filled, grid, save, upside_down

from npcrepro.base.errors import InputError
from npcrepro.cohorts import public
from npcrepro.cohorts.check import check
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.public.segrap import SEGRAP_ORGANS, STRUCTSEG_ORGANS
from npcrepro.cohorts.structures import mask_of

# Correlation of T2 with T1, which is its negative: -0.26 in patient 1 where the motion is not undone.
AGREE = -0.4


class Converted:
    """A conversion, and what it said."""

    def __init__(self, key, source, destination, variant=None):
        self.lines = []
        self.cohort = public.convert(public.find(key), source, destination, variant, self.lines.append)
        self.record = json.loads((destination / "conversion.json").read_text())
        self.defects = [str(defect) for defect in check(destination)]

    def case(self, name):
        return self.cohort.cases[self.cohort.case_names.index(name)]

    def image(self, case, channel=0):
        return read_image(self.case(case).images[channel])

    def label(self, case):
        return read_image(self.case(case).label)

    def mask(self, case, structure):
        return mask_of(self.label(case)[0], self.cohort.structures, structure)

    def centre(self, case, structure):
        array, spacing_mm, geometry = self.label(case)
        return centre_mm(mask_of(array, self.cohort.structures, structure), spacing_mm, geometry)


@pytest.fixture
def conversion(tmp_path):
    def conversion(key, variant=None, source=tmp_path / "source", destination=tmp_path / "cohort"):
        return Converted(key, source, destination, variant)

    return conversion


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def refused(source, key, variant=None):
    with pytest.raises(InputError) as problem:
        public.convert(public.find(key), source, source.parent / "cohort", variant, lambda _: None)
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]
    return str(problem.value)


# NPC MRI 277


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


def test_npc_mri_has_a_sheet_for_every_case(npc):
    sheets = sorted((npc.cohort.root / "overlays").iterdir())
    assert [sheet.name for sheet in sheets] == ["NPC_001.png", "NPC_002.png"]
    picture = matplotlib.image.imread(sheets[0])[..., :3]
    orange = np.abs(picture - np.array([0.902, 0.624, 0.0])).max(-1) < 0.1
    height, width = orange.shape
    for row in range(2):
        for column in range(3):
            part = np.s_[row * height // 2 : (row + 1) * height // 2, column * width // 3 : (column + 1) * width // 3]
            assert orange[part].sum() > 10, (row, column)


def test_npc_mri_with_another_reference(source, conversion, monkeypatch):
    # What registration finds is tested above.
    monkeypatch.setattr("npcrepro.cohorts.resample.register_rigid", lambda *_: (sitk.Transform(), 1.0))
    sources.npc_mri(source)
    patient = source / "data/MRI-Segments/001"
    (patient / "ROI-T1.nii").unlink()
    assert "ROI-T1.nii: no such file; the reference series has no mask" in refused(source, "npc-mri-277")
    done = conversion("npc-mri-277", "CET1", source / "data/MRI-Segments")
    assert done.image("NPC_001")[0].shape == (24, 54, 54)
    np.testing.assert_array_equal(done.mask("NPC_001", "GTVp"), sources.npc_series("CE-T1", 1)[1].array > 0.5)
    assert done.cohort.channels == ("T1", "T2", "CET1")
    assert done.defects == []
    (patient / "T1WI").rename(patient / "T1")
    (source.parent / "cohort").rename(source / "done")
    assert "T1WI" in refused(source, "npc-mri-277")


# SegRap2023


def segrap(source, case, label, task="Task001"):
    for number, name in enumerate(("image", "image_contrast")):
        save(
            ct(grid(), 2 * case + number),
            source / f"SegRap2023_Training_Set_120cases/segrap_{case:04d}/{name}.nii.gz",
        )
    path = source / f"SegRap2023_Training_Set_120cases_OneHot_Labels/{task}/segrap_{case:04d}.nii.gz"
    save(filled(grid(), label), path)


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
    save(block(grid()), source / "SegRap2023_Training_Set_120cases_OneHot_Labels/Task002/segrap_0005.nii.gz")
    done = conversion("segrap2023", "targets")
    assert done.cohort.structures == {"GTVp": (1,), "GTVnd": (2,)}
    np.testing.assert_array_equal(done.label("segrap_0000")[0], parts)
    assert "unknown label value (3" in done.record["skipped"]["segrap_0001"]
    assert done.record["skipped"]["segrap_0005"] == "a label in Task002 and no folder of images"


def test_segrap_from_one_file_an_organ(source, conversion):
    images = source / "SegRap2023_Training_Set_120cases"
    for name in ("image", "image_contrast"):
        save(ct(grid(), len(name)), images / f"segrap_0000/{name}.nii.gz")
    save(block(grid(), corner=(0, 0, 0), size=(8, 12, 14)), images / "segrap_0000/Brain.nii.gz")
    save(block(grid(), 1), images / "segrap_0000/Chiasm.nii.gz")
    # The corrected label replaces the first one.
    corrected = block(grid(), 1, corner=(3, 3, 3))
    save(corrected, source / "SegRap2023_Training_Set_120cases_Update_Labels/segrap_0000/Chiasm.nii.gz")
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
    images = source / "SegRap2023_Training_Set_120cases"
    coarse = grid((4, 6, 7), (6.0, 3.0, 3.0))
    slices = np.array([70, 78, 86, 94], np.int16)[:, None, None]
    save(
        filled(coarse, np.broadcast_to(slices, coarse.array.shape).copy()), images / "segrap_0000/image_contrast.nii.gz"
    )
    save(grid(origin=(1000.0, 0.0, 0.0)), images / "segrap_0001/image_contrast.nii.gz")
    done = conversion("segrap2023", "targets")
    between = np.array([70, 72, 76, 80, 84, 88, 92, 94])[:, None, None]
    assert (done.image("segrap_0000", 1)[0] == between).all()
    assert done.record["notes"]["segrap_0000"] == ["contrast CT: resampled, as it was on another grid"]
    assert done.defects == []
    assert done.cohort.case_names == ["segrap_0000"]
    lost = "segrap_0001/image_contrast.nii.gz covers no voxel of the first channel: its origin was lost"
    assert lost in done.record["skipped"]["segrap_0001"]


# StructSeg 2019


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


# HaN-Seg


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


# DeepMind TCIA


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


def test_deepmind_pointers_of_git_lfs_and_cases_of_both_parts_are_named(source):
    folder = deepmind(source, "test", "0522c0001", {"Mandible": block(grid())})
    (folder / "CT_IMAGE.nrrd").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "run 'git lfs pull'" in refused(source, "deepmind-tcia")
    deepmind(source, "validation", "0522c0001", {"Mandible": block(grid())})
    assert "holds a case twice" in refused(source, "deepmind-tcia")


# LNCTVSeg


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


def test_lnctv_that_is_still_locked(source):
    (source / "LNCTVSeg-DataSet.zip").write_bytes(b"PK")
    message = refused(source, "lnctvseg")
    assert "unpacked with 7z and the password of the challenge page" in message
    assert message.endswith("it holds LNCTVSeg-DataSet.zip; unpack LNCTVSeg-DataSet.zip first")


# HNTS-MRG 2024


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


# OpenKBP


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


# What all share


@pytest.mark.parametrize("key", public.SETS)
def test_another_layout_is_refused(key, source):
    (source / "notes.txt").write_text("x")
    message = refused(source, key)
    assert public.find(key).layout in message
    assert message.endswith("it holds notes.txt")


def test_source_and_destination_are_looked_at_first(source, tmp_path):
    structseg(source, 1, block(grid(), 1))
    chosen = public.find("structseg2019")
    with pytest.raises(InputError, match="no such folder"):
        public.convert(chosen, tmp_path / "nowhere", tmp_path / "cohort")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack the archive first"):
        public.convert(chosen, tmp_path / "set.zip", tmp_path / "cohort")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        public.convert(chosen, source, tmp_path / "full")
    with pytest.raises(InputError, match="unknown variant of structseg2019 'target'; did you mean 'targets'"):
        public.convert(chosen, source, tmp_path / "cohort", "target")
    with pytest.raises(InputError, match=r"cannot write .*mine\.txt"):
        public.convert(chosen, source, tmp_path / "full/mine.txt/cohort")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "set.zip", "source"]


@pytest.mark.parametrize("chosen", public.SETS.values(), ids=lambda chosen: chosen.key)
def test_every_set_is_described(chosen):
    assert chosen.content
    assert chosen.licence
    assert chosen.reference
    assert chosen.variants
    assert bool(chosen.downloads) == (chosen.access.startswith("open") and "git-lfs" not in chosen.access)
    for file in chosen.downloads:
        assert file.url.startswith("https://")
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32


def test_what_may_be_published():
    allowed = {key for key, each in public.SETS.items() if each.publishable}
    assert allowed == {"npc-mri-277", "lnctvseg", "openkbp"}


def test_the_record_lies_beside_the_cohort(source, conversion):
    structseg(source, 1, block(grid((7, 12, 14)), 1))
    message = refused(source, "structseg2019")
    assert "no case of StructSeg 2019 that can be used; the first: structseg_01: HaN_OAR/1/label.nii.gz" in message
    structseg(source, 1, block(grid(), 1))
    done = conversion("structseg2019")
    assert read_cohort(source.parent / "cohort").licence == done.cohort.licence
    assert done.record == {"set": "structseg2019", "variant": "oars", "skipped": {}, "notes": {}}
    assert done.lines[-1] == "1 cases, none skipped, notes on 0: see conversion.json"
    names = {path.name for path in (source.parent / "cohort").iterdir()}
    assert names == {"conversion.json", "dataset.json", "imagesTr", "labelsTr"}
