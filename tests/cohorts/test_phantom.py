"""The digital phantom: deterministic, the same anatomy at any matrix, and not trivial to segment."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from npcrepro.cohorts.phantom import CET1, STRUCTURES, PhantomPatient, Tissue, make_patient, write_phantom
from npcrepro.errors import InputError

SMALL = (8, 64, 64)
AIR = (Tissue.AIR, Tissue.LUMEN)


@pytest.fixture(scope="module")
def patients() -> list[PhantomPatient]:
    return [make_patient(number, matrix=SMALL) for number in range(30)]


@pytest.fixture(scope="module")
def fine() -> list[PhantomPatient]:
    return [make_patient(number, matrix=(20, 72, 72)) for number in (0, 3, 5, 10)]


def best_threshold_dsc(made: PhantomPatient) -> float:
    """DSC of the best single threshold inside the head, tumour above it or below it."""
    head = made.tissue != Tissue.OUTSIDE
    order = np.argsort(made.image[0][head])
    tumour = made.label[head][order].astype(float)
    chosen = np.arange(1, len(order) + 1)
    return max((2 * np.cumsum(t) / (chosen + tumour.sum())).max() for t in (tumour, tumour[::-1]))


def test_arrays_have_the_stated_shape_type_and_range(patients: list[PhantomPatient]) -> None:
    made = patients[0]
    assert made.image.shape == (1, *SMALL)
    assert made.image.dtype == np.float32
    assert made.label.shape == made.tissue.shape == SMALL
    assert made.label.dtype == made.tissue.dtype == np.uint8
    assert made.spacing_mm == (7.5, 3.4375, 3.4375)
    assert set(np.unique(made.label)) == {0, STRUCTURES["GTVp"]}
    assert np.isfinite(made.image).all()
    assert made.image.min() >= 0
    assert np.percentile(made.image, 99.9) < 1500


def test_every_tissue_has_a_signal() -> None:
    assert set(CET1) == set(Tissue)


def test_same_bytes_again_in_any_order_of_patients(patients: list[PhantomPatient]) -> None:
    for number in (7, 2):
        again = make_patient(number, matrix=SMALL)
        for array in ("image", "label", "tissue"):
            assert getattr(again, array).tobytes() == getattr(patients[number], array).tobytes()


def test_seeds_and_patients_differ(patients: list[PhantomPatient]) -> None:
    other = make_patient(0, seed=1, matrix=SMALL)
    assert (other.tissue != patients[0].tissue).mean() > 0.02
    assert (patients[1].tissue != patients[0].tissue).mean() > 0.02


def test_same_anatomy_at_two_matrices() -> None:
    for number in (1, 4):
        low = make_patient(number, matrix=(10, 56, 56))
        high = make_patient(number, matrix=(20, 96, 96))
        assert low.volume_ml == pytest.approx(high.volume_ml, rel=0.03)
        # The middle of a voxel of the low matrix, in indices of the high one.
        index = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(low.tissue.shape, high.tissue.shape)]
        assert (high.tissue[np.ix_(*index)] == low.tissue).mean() > 0.8


def test_volumes_are_those_of_npc(patients: list[PhantomPatient]) -> None:
    volumes = np.array([made.volume_ml for made in patients])
    assert volumes.min() > 1.5
    assert volumes.max() < 62
    assert 5 < np.median(volumes) < 18
    for made in patients:
        assert made.label.any()
        assert made.label.sum() * np.prod(made.spacing_mm) / 1000 == pytest.approx(made.volume_ml, rel=0.2, abs=0.5)


def test_tumour_lies_at_the_airway_inside_the_head_in_one_piece(fine: list[PhantomPatient]) -> None:
    for made in fine:
        tumour = made.label > 0
        to_air = ndimage.distance_transform_edt(~np.isin(made.tissue, AIR), sampling=made.spacing_mm)
        assert to_air[tumour].min() <= 6
        # Filling slice by slice keeps the airways, which open to the outside in other slices, within the head.
        head = np.stack([ndimage.binary_fill_holes(s != Tissue.OUTSIDE) for s in made.tissue])
        to_outside = ndimage.distance_transform_edt(np.pad(head, ((0, 0), (1, 1), (1, 1))), sampling=made.spacing_mm)
        assert to_outside[:, 1:-1, 1:-1][tumour].min() > 10
        pieces, _ = ndimage.label(tumour, np.ones((3, 3, 3)))
        assert np.bincount(pieces[tumour]).max() > 0.95 * tumour.sum()


def test_airway_stays_open(fine: list[PhantomPatient]) -> None:
    for made in fine:
        lumen = made.tissue == Tissue.LUMEN
        assert lumen.any(axis=(1, 2)).sum() >= 8
        assert lumen.sum() * np.prod(made.spacing_mm) > 400  # mm3


def test_tumour_is_a_small_part_of_several_slices(fine: list[PhantomPatient]) -> None:
    for made in fine:
        area = (made.label > 0).sum((1, 2)) / (made.tissue != Tissue.OUTSIDE).sum((1, 2))
        assert 4 <= (area > 0).sum() <= 17
        assert 0.005 < area.max() < 0.14


def test_tumour_enhances_between_muscle_and_mucosa() -> None:
    assert CET1[Tissue.MUSCLE].mean < CET1[Tissue.TUMOUR].mean < CET1[Tissue.MUCOSA].mean


def test_a_threshold_does_not_segment_the_tumour(patients: list[PhantomPatient]) -> None:
    assert np.mean([best_threshold_dsc(made) for made in patients]) < 0.6


def test_smallest_matrix() -> None:
    assert make_patient(0, matrix=(4, 4, 4)).image.shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"matrix": (3, 64, 64)}, "matrix"),
        ({"matrix": (8, 64)}, "matrix"),
        ({"field_of_view_mm": (60, 0, 220)}, "field of view"),
        ({"seed": -1}, "negative"),
        ({"patient": -1}, "negative"),
    ],
)
def test_bad_input_is_named(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make_patient(**{"patient": 0, "matrix": SMALL, **options})


def test_a_cohort_needs_patients(tmp_path) -> None:
    with pytest.raises(InputError, match="at least 1 patient"):
        write_phantom(tmp_path / "phantom", patients=0)
    assert not (tmp_path / "phantom").exists()


def test_written_cohort_holds_the_patients(tmp_path) -> None:
    matrix = (6, 32, 32)
    write_phantom(tmp_path / "phantom", patients=2, seed=3, matrix=matrix)
    header = json.loads((tmp_path / "phantom" / "dataset.json").read_text())
    assert header["numTraining"] == 2
    assert header["publishable"] is True
    made = make_patient(1, seed=3, matrix=matrix)
    image = sitk.ReadImage(tmp_path / "phantom" / "imagesTr" / "PHANTOM_001_0000.nii.gz")
    label = sitk.ReadImage(tmp_path / "phantom" / "labelsTr" / "PHANTOM_001.nii.gz")
    assert image.GetPixelID() == sitk.sitkInt16
    assert image.GetSpacing()[::-1] == pytest.approx(made.spacing_mm)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.rint(made.image[0]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), made.label)
