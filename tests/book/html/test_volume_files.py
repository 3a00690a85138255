"""Patients as files of a page: grids, axes, steps of probability, and the way out of a notebook."""

from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
from viewer_cases import COLOURS, NET, OTHER, SPACING_MM, block, notebook_with, patient, volumes

from npcrepro.base.errors import InputError
from npcrepro.book.html import viewer, volume_files
from npcrepro.book.html.volume_files import pack, patient_of, unpack


def read(content: bytes, folder) -> sitk.Image:
    path = folder / "volume.nii.gz"
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


def seen(content: bytes, folder) -> np.ndarray:
    """Array to the left and to the back, as those of the tests; files go to the right and to the front."""
    return sitk.GetArrayFromImage(read(content, folder))[:, ::-1, ::-1]


def test_every_series_and_outline_is_a_small_file_on_one_upright_grid(tmp_path):
    about, files = pack(patient(second=True))
    assert list(about["series"]) == ["T1", "T2"]
    assert {s: list(names) for s, names in about["structures"].items()} == {
        "GTVp": ["Reference", NET, OTHER],
        "GTVnd": ["Reference", NET, OTHER],
    }
    named = [*about["series"].values(), *(n for names in about["structures"].values() for n in names.values())]
    assert set(named) == set(files)
    for name in named:
        image = read(files[name], tmp_path)
        assert image.GetPixelID() == sitk.sitkUInt8
        assert image.GetSize() == (32, 24, 8)
        assert image.GetSpacing() == (1.25, 1, 3)
        # To the right, to the front and up, as viewers of NIfTI like it.
        assert image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    # The first of the largest slices of a block: x goes to the right, y to the front.
    assert about["start"]["GTVp"] == pytest.approx([1 - 25.5 / 32, 1 - 8.5 / 24, 4.5 / 8])


def test_masks_keep_every_voxel_images_their_order_and_probabilities_their_steps(tmp_path):
    one = patient()
    about, files = pack(one)
    layers = about["structures"]["GTVp"]
    mask = seen(files[layers["Reference"]], tmp_path)
    np.testing.assert_array_equal(mask, one.masks["GTVp"])
    kept, given = seen(files[layers[NET]], tmp_path), one.probabilities[NET]["GTVp"]
    np.testing.assert_array_equal(kept, np.where(np.rint(given * 255) >= 13, np.rint(given * 255), 0))
    image = seen(files[about["series"]["T2"]], tmp_path)
    assert (image.min(), image.max()) == (0, 255)
    assert image[mask > 0].max() < image[mask == 0].min()
    windowed, files = pack(replace(one, limits=(0, 100)))
    assert set(seen(files[windowed["series"]["T1"]], tmp_path)[mask > 0]) == {255}


def test_axes_of_the_scanner_become_those_of_the_patient():
    """A sagittal series: slices go to the left, rows down, columns to the back."""
    one = patient()

    def turn(array):
        return np.ascontiguousarray(array.transpose(2, 0, 1)[:, ::-1])

    geometry = {"origin": [9, 9, 9], "direction": [0, 0, 1, 1, 0, 0, 0, -1, 0]}
    z, y, x = SPACING_MM
    turned = replace(
        one,
        series={title: turn(a) for title, a in one.series.items()},
        masks={title: turn(a) for title, a in one.masks.items()},
        probabilities={m: {s: turn(a) for s, a in maps.items()} for m, maps in one.probabilities.items()},
        spacing_mm=(x, z, y),
        geometry=geometry,
    )
    assert pack(turned)[1] == pack(one)[1]


def test_a_large_patient_is_cut_to_what_is_marked_and_then_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_files, "MARGIN_MM", 3.0)
    one = patient(methods=())
    far = np.zeros((8, 24, 32))
    far[4, 3, 10] = 0.06  # a reader can choose a threshold that marks it
    far[0, 23, 0] = 0.04  # and none that marks this
    one = replace(one, probabilities={NET: {"GTVp": far}})
    sizes = []
    for limit in (8 * 24 * 32 * 2, 8 * 24 * 32, 700):
        monkeypatch.setattr(volume_files, "SET_VOXELS", limit)
        about, files = pack(one)
        image = read(files[about["series"]["T1"]], tmp_path)
        assert 2 * np.prod(image.GetSize()) <= limit
        sizes.append((image.GetSize(), image.GetSpacing(), about["step"]))
        assert seen(files[about["structures"]["GTVp"]["Reference"]], tmp_path).any()
    whole, cut, thin = sizes
    assert whole == ((32, 24, 8), (1.25, 1, 3), 1)
    # From 10 to 25 across; three millimetres are three voxels in a slice, and one slice.
    assert cut == ((16 + 6, 6 + 6, 3 + 2), (1.25, 1, 3), 1)
    assert thin[1:] == ((2 * 1.25, 2, 3), 2)


def test_patients_that_do_not_fit_together_are_refused():
    one = patient()
    for wrong, words in (
        (replace(one, masks={"GTVp": block(0, 0, 0)[:, 1:]}), "P0 needs series and masks on one grid"),
        (replace(one, series={}), "P0 needs series"),
        (replace(one, masks=one.masks | {"GTVnd": block(0, 0, 0)}), f"GTVp, GTVnd, but {NET} maps of GTVp"),
    ):
        with pytest.raises(InputError, match=words):
            pack(wrong)


def test_a_case_of_a_cohort_with_and_without_what_methods_found():
    label = np.zeros((8, 24, 32), np.uint8)
    label[block(4, 3, 18)] = 2
    about = SimpleNamespace(label=label, image=np.stack([label, label + 1]), spacing_mm=SPACING_MM, geometry=None)
    prepared = SimpleNamespace(
        case=lambda name: about, structures={"A": (1,), "B": (2,)}, channels=("T1", "T2"), spacing_known=True
    )
    plain = patient_of(prepared, "P0")
    assert (list(plain.masks), plain.about) == (["B"], {"B (ml)": "0.5"})  # 144 voxels of 3.75 mm³
    assert plain.structures() == {"": plain.masks}
    found = patient_of(prepared, "P0", {NET: np.stack([label > 2, label / 2])}, ("A", "B"), ("T2",), (0, 1))
    assert (list(found.masks), list(found.series), found.limits) == (["A", "B"], ["T2"], (0, 1))
    np.testing.assert_array_equal(found.probabilities[NET]["B"], label / 2)


def test_volumes_leave_the_notebook_and_nothing_else_does():
    content = viewer.bundle([patient()], COLOURS)
    page, files = unpack(notebook_with(content))
    assert files == volumes(content)
    left = nbformat.reads(page.decode(), 4)
    nbformat.validate(left)
    assert left.cells[0].source == "# Volumes – all"
    assert left.cells[1].outputs[0].data == {k: v for k, v in content.items() if k != volume_files.VOLUMES_TYPE}
    assert unpack(b"{}") == (b"{}", {})
