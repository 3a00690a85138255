"""Patients and cohorts of the phantom: deterministic, the same anatomy at any matrix, and not trivial to segment."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import check
from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.phantom import (
    KINDS,
    PhantomPatient,
    Tissue,
    acquisition,
    make_patient,
    second_observer,
    write_phantom,
)
from npcrepro.cohorts.structures import mask_of

SMALL = (8, 48, 48)
TINY = (6, 24, 24)


@pytest.fixture(scope="module")
def patients() -> list[PhantomPatient]:
    return [make_patient(number, matrix=SMALL) for number in range(8)]


def digest(made: PhantomPatient) -> str:
    content = hashlib.sha256()
    for array in (made.image, made.tissue, *made.masks.values()):
        content.update(np.ascontiguousarray(array))
    return content.hexdigest()


@pytest.mark.parametrize(
    ("kind", "channels"), [("mri", ("T1", "T2", "CET1")), ("thrive", ("THRIVE",)), ("ct", ("CT",)), ("dce", None)]
)
def test_arrays_have_the_stated_shape_type_and_range(kind, channels) -> None:
    if channels is None:
        channels = tuple(f"frame_{frame:02d}" for frame in range(1, 66))
    made = make_patient(0, kind=kind, matrix=TINY)
    assert tuple(KINDS[kind].channels) == channels
    assert made.image.shape == (len(channels), *TINY)
    assert made.image.dtype == np.int16
    assert tuple(made.masks) == KINDS[kind].structures
    assert all(mask.shape == TINY and mask.dtype == bool for mask in made.masks.values())
    assert made.tissue.shape == TINY
    assert made.tissue.dtype == np.uint8
    assert made.stage in (1, 2, 3, 4)
    low, high = (-1024, 3071) if kind == "ct" else (0, 6000)
    assert low <= made.image.min() < made.image.max() <= high


def test_same_bytes_again_in_another_process_and_order(patients) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_cohort import *\n"
    code += "print(*(digest(make_patient(number, matrix=SMALL)) for number in (7, 2)))"
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(patients[7]), digest(patients[2])]


def test_slabs_do_not_show(patients, monkeypatch) -> None:
    monkeypatch.setattr(acquisition, "SLAB_NUMBERS", 1)
    again = make_patient(3, matrix=SMALL)
    # Sums of floats in slabs of another size may differ in their last bit.
    assert (again.tissue != patients[3].tissue).mean() < 1e-3
    assert (np.abs(again.image - patients[3].image) > 1).mean() < 1e-3


def test_seeds_and_patients_differ(patients) -> None:
    for other in (make_patient(0, seed=1, matrix=SMALL), patients[1]):
        assert (other.tissue != patients[0].tissue).mean() > 0.02


def test_no_series_is_segmented_by_a_threshold(patients) -> None:
    for channel in range(3):
        scores = []
        for made in patients:
            head = made.tissue != Tissue.OUTSIDE
            tumour = made.masks["GTVp"][head][np.argsort(made.image[channel][head])].astype(float)
            chosen = np.arange(1, len(tumour) + 1)
            scores.append(max((2 * np.cumsum(t) / (chosen + tumour.sum())).max() for t in (tumour, tumour[::-1])))
        assert np.mean(scores) < 0.5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"matrix": (3, 64, 64)}, "at least 4 x 4 x 4, not \\(3, 64, 64\\)"),
        ({"spacing_mm": (3, 0, 1)}, "spacing .* not \\(3.0, 0.0, 1.0\\)"),
        ({"kind": "MRI"}, "unknown kind of phantom 'MRI'.*mri, thrive, dce, ct"),
        ({"channels": ["CT1"]}, "unknown channel of the phantom mri 'CT1'; did you mean 'CET1'"),
        ({"patients": 0}, "at least 1 patient"),
        ({"second_observer": 64}, "agreement 64"),
        ({"second_observer": float("nan")}, "agreement nan"),
        ({"seed": -1}, "negative"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, options, match) -> None:
    with pytest.raises(InputError, match=match):
        write_phantom(tmp_path / "phantom", **{"patients": 1, "matrix": SMALL, **options})
    assert not list(tmp_path.iterdir())


def test_written_cohort_holds_the_patients(tmp_path) -> None:
    written = write_phantom(tmp_path / "phantom", patients=2, seed=3, matrix=TINY, channels=("CET1",))
    header = json.loads((tmp_path / "phantom" / "dataset.json").read_text())
    assert header["numTraining"] == 2
    assert header["publishable"] is True
    assert written.channels == ("CET1",)
    assert written.structures == {"GTVp": (1,)}
    assert not (tmp_path / "phantom" / "labels_observer2").exists()
    made = make_patient(1, seed=3, matrix=TINY)
    image, spacing_mm, _ = read_image(written.cases[1].images[0])
    assert image.dtype == np.int16
    assert spacing_mm == pytest.approx(made.spacing_mm)
    np.testing.assert_allclose(image, made.image[2], atol=1)
    np.testing.assert_array_equal(read_image(written.cases[1].label)[0], made.masks["GTVp"])


def test_second_observer_is_written_beside_the_first(tmp_path) -> None:
    written = write_phantom(tmp_path / "p", kind="ct", patients=1, matrix=(24, 56, 56), second_observer=0.8)
    for case in written.cases:
        first, spacing_mm, geometry = read_image(case.label)
        second, *where = read_image(tmp_path / "p" / "labels_observer2" / case.label.name)
        assert where == [spacing_mm, geometry]
        assert set(np.unique(second)) <= {0, 1, 2}
        tumour = mask_of(first, written.structures, "GTVp")
        drawn = mask_of(second, written.structures, "GTVp")
        assert dsc(tumour, drawn) == pytest.approx(0.8, abs=0.05)
    assert check(tmp_path / "p") == []


SPACING = (3.0, 1.5, 1.5)


def ball(radius_mm: float, shape=(20, 48, 48), centre=(10, 24, 24)) -> np.ndarray:
    z, y, x = (s * (np.arange(n) - c) for n, s, c in zip(shape, SPACING, centre))
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < radius_mm**2


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("agreement", [0.64, 0.85])
@pytest.mark.parametrize("radius_mm", [8, 18])
def test_agreement_is_reached(agreement, radius_mm) -> None:
    first = ball(radius_mm)
    for number in range(5):
        second = second_observer(first, SPACING, np.random.default_rng(number), agreement)
        assert second.dtype == bool
        assert dsc(first, second) == pytest.approx(agreement, abs=0.03)
        # Every piece is part of what the first one drew: no islands.
        pieces, count = ndimage.label(second)
        assert all((first & (pieces == piece)).any() for piece in range(1, count + 1))


def test_both_directions_of_disagreement() -> None:
    first = ball(14)
    sizes = [second_observer(first, SPACING, np.random.default_rng(n)).sum() / first.sum() for n in range(12)]
    assert min(sizes) < 0.9
    assert max(sizes) > 1.1
