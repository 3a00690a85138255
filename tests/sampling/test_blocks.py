import itertools
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_cases import write_tiny
from monai.inferers import sliding_window_inference
from scipy.ndimage import distance_transform_edt

from npcrepro.base.errors import InputError
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.prepared import prepare
from npcrepro.sampling.blocks import FUSIONS, BlockData
from npcrepro.sampling.grid import Grid

MATRIX = (4, 8, 8)
HEAD = (slice(2, 18), slice(3, 27), slice(4, 24))  # 16 x 24 x 20 voxels
TUMOUR, FAR = (slice(8, 13), slice(10, 17), slice(9, 14)), (slice(2, 6), slice(3, 9), slice(4, 9))


def box(shape, place):
    mask = np.zeros(shape, np.uint8)
    mask[place] = 1
    return mask


def case(name="A", shape=(20, 30, 28), head=HEAD, tumour=TUMOUR, spacing_mm=(1.0, 1.0, 1.0)):
    """A bright, speckled head in a dark room, with a brighter tumour."""
    label = box(shape, tumour)
    image = 300 * box(shape, head).astype(np.int16) + 200 * label
    image += np.random.default_rng(0).integers(0, 40, shape).astype(np.int16)
    return CaseArrays(name, name, image[None], label, spacing_mm)


def l_shaped():
    """A quarter of the head's box is air."""
    head, tumour = (slice(0, 8), slice(0, 32), slice(0, 32)), (slice(2, 4), slice(2, 6), slice(2, 6))
    arrays = case(shape=(8, 40, 40), head=head, tumour=tumour)
    arrays.image[0, :, 16:, 16:] = 0
    return arrays


@pytest.fixture
def blocks(tmp_path):
    """Make `BlockData` of cases, on a cohort of its own."""
    numbers = itertools.count()

    def blocks(*cases, matrix=MATRIX, structures=("GTVp",), cohort=None, **options):
        number = next(numbers)
        write = {"structures": dict(zip(structures, range(1, 9))), **(cohort or {})}
        prepared = prepare(write_tiny(tmp_path / f"c{number}", cases or [case()], **write), tmp_path / f"p{number}")
        return BlockData(prepared, matrix, ("CET1",), structures, **options)

    return blocks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def first_channel(image):
    """The image itself as the probability."""
    return image[:, :1]


def predict(data, network, case="A", activation="identity", batch_size=5):
    return data.predict(network, case, activation=activation, batch_size=batch_size, device="cpu")


def test_the_volume_is_the_box_of_the_head(blocks):
    data, original = blocks(), case()
    assert data.grid("A") == Grid((2.0, 3.0, 4.0), 1.0, (16, 24, 20))
    assert data.head("A").all()
    assert np.array_equal(data.label("A")[0], original.label[HEAD])
    inside = original.image[0][HEAD].astype(float)
    np.testing.assert_allclose(data.image("A")[0], (inside - inside.mean()) / inside.std(), atol=1e-5)


def test_other_voxels_become_cubes(blocks):
    """Slices of 3 mm and pixels of 0.5 mm, to 1 mm; a ramp stays a ramp."""
    shape, head = (10, 40, 40), (slice(2, 8), slice(8, 32), slice(8, 32))
    tumour = (slice(4, 6), slice(12, 24), slice(16, 24))
    arrays = case(shape=shape, head=head, tumour=tumour, spacing_mm=(3.0, 0.5, 0.5))
    arrays.image[0] = box(shape, head) * (1000 + 10 * np.arange(40, dtype=np.int16))
    data = blocks(arrays)
    assert (data.grid("A").size, data.grid("A").spacing_mm) == ((18, 12, 12), 1.0)
    steps = np.diff(data.image("A")[0, 6:12, 2:-2, 2:-2], axis=2)
    np.testing.assert_allclose(steps, steps.mean(), atol=1e-5)
    # 2 x 3 mm, 12 x 0.5 mm and 8 x 0.5 mm
    assert int(data.label("A").sum()) == 6 * 6 * 4


def test_a_large_head_is_cut_about_its_middle_whatever_the_label_shows(blocks):
    data = blocks(case("A"), case("B", tumour=FAR), size_mm=(8, 24, 10))
    assert data.grid("A") == data.grid("B") == Grid((6.0, 3.0, 9.0), 1.0, (8, 24, 10))
    assert [data.share_outside(name)["GTVp"] for name in "AB"] == [0, 1]
    # Small voxels at the edge lie within large ones whose middles they do not reach.
    assert blocks(case(tumour=HEAD, spacing_mm=(0.5, 0.5, 0.5))).share_outside("A")["GTVp"] == 0


def test_nothing_is_cut_where_another_structure_stands_in(blocks):
    """A sarcoma of a limb lies anywhere, the tumour that the method names in a fixed part of the head."""
    limb = {"cohort": {"structures": {"GTV": 1}}, "size_mm": (4, 24, 10)}
    whole = Grid((2.0, 3.0, 4.0), 1.0, (16, 24, 20))
    data = blocks(**limb)
    assert data.structures == ("GTV",)
    assert data.grid("A") == whole
    assert data.share_outside("A") == {"GTV": 0}
    assert blocks(**limb, cut="always").grid("A").size == (4, 24, 10)
    assert blocks(size_mm=(4, 24, 10)).grid("A").size == (4, 24, 10)
    assert blocks(size_mm=(4, 24, 10), cut="never").grid("A") == whole
    with pytest.raises(InputError, match="did you mean 'never'"):
        blocks(cut="nevr")


def test_what_is_cut_off_from_a_structure_is_told_before_training(blocks):
    data = blocks(case("A"), case("B", tumour=FAR), size_mm=(4, 24, 20))
    # Slices 8 to 11 are left of the tumour's slices 8 to 12.
    with pytest.warns(UserWarning, match=r"leaves out a part of GTVp in 1 of 1 case, most in A \(20%\)"):
        assert data.samples(["A"])
    with pytest.raises(InputError, match="case B: all of GTVp lies outside the cut"):
        data.samples(["A", "B"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert blocks(case("A"), size_mm=(5, 24, 20)).samples(["A"])


def test_a_volume_smaller_than_a_block_is_padded_with_its_darkest_value(blocks, tmp_path):
    shape, head = (3, 12, 12), (slice(0, 3), slice(2, 10), slice(3, 9))
    arrays = case(shape=shape, head=head, tumour=(1, slice(4, 8), slice(5, 8)))
    arrays.image[:] = 100.0 * box(shape, head) + 200.0 * arrays.label - 1000.0  # as CT has it
    data = blocks(arrays, maps={"A": [write_map(tmp_path / "A.npz", np.ones((1, *shape)))]})
    assert data.grid("A").size == MATRIX
    image, label = data.batch(data.samples(["A"]))
    inside = torch.from_numpy(np.array(data.head("A")))
    assert inside.sum() == 3 * 8 * 6
    assert image[0, 0][~inside].unique().numel() == 1
    assert image[0, 0][~inside].max() < image[0, 0][inside].min()
    assert image[0, 1].unique(return_counts=True)[1].tolist() == [64, 3 * 64]  # the map
    assert int(label.sum()) == 12
    assert predict(data, first_channel).shape == (1, *shape)


def test_an_image_of_one_intensity_is_an_error_and_a_structure_that_nobody_drew_is_not_empty(blocks):
    arrays = case()
    arrays.image[:] = 70
    with pytest.raises(InputError, match="case A: all voxels of CET1 are 70, so no head"):
        blocks(arrays).image("A")
    data = blocks(replace(case(), not_contoured=("GTVnd",)), structures=("GTVp", "GTVnd"))
    assert (data.label("A")[1] == NOT_CONTOURED).all()
    assert data.label("A")[0].max() == 1
    assert np.isnan(data.share_outside("A")["GTVnd"])
    _, label = data.batch(data.draw(data.samples(["A"]), 20, generator()))
    assert (label[:10, 0] == 1).flatten(1).any(dim=1).all()


def test_the_weight_of_a_case_is_that_of_its_resampled_label(blocks):
    data = blocks(case(spacing_mm=(3.0, 2.0, 2.0)), distance_weight="core")
    mask = data.label("A")[0] == 1
    expected = np.where(mask, distance_transform_edt(mask, sampling=(2.0, 2.0, 2.0)) - 2 + 1, 1)
    np.testing.assert_allclose(data.weight("A")[0], expected, rtol=1e-6)
    assert expected.max() > 3
    drawn = data.draw(data.samples(["A"]), 6, generator())
    _, label, weight = data.batch(drawn)
    assert weight.shape == label.shape == (6, 1, *MATRIX)
    assert (weight[label == 0] == 1).all()
    assert (weight > 1).any()


def test_samples_cover_the_tumour_and_as_much_of_the_head(blocks):
    healthy = case("B")
    healthy.label[:] = 0
    data = blocks(l_shaped(), healthy)
    samples = data.samples(["A", "B"])
    _, label = data.batch(samples)
    holding = label.flatten(1).any(dim=1)
    assert holding.sum() == len(samples) / 2
    assert int(label.sum()) >= int(data.label("A").sum())
    assert len(set(samples)) == len(samples)
    assert {block.case for block in samples} == {"A"}  # which has a tumour
    alone = blocks(tumour_share=1.0)
    assert alone.batch(alone.samples(["A"]))[1].flatten(1).any(dim=1).all()
    many = blocks(l_shaped(), tumour_share=0.01)
    corners = [block.corner for block in many.samples(["A"])]
    assert len(corners) == 2 * (16 - 4)
    assert not [(z, y, x) for z, y, x in corners if y >= 16 and x >= 16]  # where there is air


def test_so_many_of_the_blocks_hold_tumour(blocks):
    """A single tumour voxel, so that hardly another block holds it by chance."""
    arrays = case(tumour=(slice(10, 11), slice(20, 21), slice(9, 10)))
    for count, share, holding in ((16, 0.5, 8), (1, 0.5, 1), (8, 0.25, 2)):
        data, counts, places = blocks(arrays, tumour_share=share), [], set()
        for seed in range(20):
            _, label = data.batch(data.draw(data.samples(["A"]), count, generator(seed)))
            counts.append(int(label.flatten(1).any(dim=1).sum()))
            assert label[:holding].flatten(1).any(dim=1).all()
            places |= {tuple(index.tolist()[2:]) for index in label.nonzero()}
        assert min(counts) == holding
        assert len(places) > 10


def test_cases_and_views_are_drawn_alike_and_by_the_generator_alone(blocks):
    data = blocks(case("A"), case("B", tumour=(slice(8, 9), slice(10, 11), slice(9, 10))), views="three")
    samples = data.samples(["A", "B"])
    drawn = data.draw(samples, 900, generator(1))
    assert 380 < [block.case for block in drawn].count("B") < 520
    assert min(Counter(block.view for block in drawn).values()) > 240
    assert data.draw(samples, 900, generator(1)) == drawn != data.draw(samples, 900, generator(2))


def test_half_of_the_blocks_are_mirrored_left_and_right(blocks):
    data = blocks(distance_weight="core")
    samples = data.samples(["A"])
    drawn = data.draw(samples, 400, generator())
    assert 160 < sum(block.mirrored for block in drawn) < 240
    assert not any(block.mirrored for block in samples)
    assert not any(block.mirrored for block in blocks(flip=0.0).draw(samples, 50, generator()))
    straight = [block._replace(mirrored=False) for block in drawn[:20]]
    mirrored = [block._replace(mirrored=True) for block in straight]
    for part, other in zip(data.batch(straight), data.batch(mirrored), strict=True):
        assert torch.equal(part, other.flip(-1))
        assert not torch.equal(part, other)


def test_blocks_of_three_views_have_one_shape_and_their_short_side_along_the_normal(blocks):
    data = blocks(views="three", distance_weight="core")
    samples = data.samples(["A"])
    assert {block.view for block in samples} == {"axial", "coronal", "sagittal"}
    image, label, weight = data.batch(samples)
    assert image.shape == label.shape == weight.shape == (len(samples), 1, *MATRIX)
    volume = data.image("A")[0]
    z, y, x = 3, 6, 5
    for view, expected in {
        "axial": volume[z : z + 4, y : y + 8, x : x + 8],
        "coronal": volume[z : z + 8, y : y + 4, x : x + 8].transpose(1, 0, 2),
        "sagittal": volume[z : z + 8, y : y + 8, x : x + 4].transpose(2, 0, 1),
    }.items():
        block = samples[0]._replace(view=view, corner=(z, y, x))
        assert np.array_equal(data.batch([block])[0][0, 0], expected)
        mirrored = data.batch([block._replace(mirrored=True)])[0][0, 0]
        assert np.array_equal(mirrored, np.flip(expected, 0 if view == "sagittal" else 2))


@pytest.mark.parametrize(("views", "overlap"), [("axial", 0.0), ("three", 0.5)])
def test_a_sliding_window_of_an_identity_returns_the_volume(blocks, views, overlap):
    """Every block comes back to its place, whatever its view: the image itself is the probability."""
    data = blocks(views=views, overlap=overlap)
    found = predict(data, first_channel)
    expected = np.zeros((1, 20, 30, 28), np.float32)
    expected[(0, *HEAD)] = data.image("A")[0].clip(0, 1)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0.1 < found[0][HEAD].mean() < 0.9


def test_overlapping_blocks_are_averaged_as_monai_does_and_nothing_reads_the_label(blocks):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 1, 3, padding=1)  # its result at a voxel depends on the block around it
    healthy = case()
    healthy.label[:] = 0
    data = blocks(healthy)
    volume = torch.from_numpy(data.image("A").copy())[None]
    with torch.no_grad():
        expected = sliding_window_inference(volume, MATRIX, 4, lambda image: network(image).sigmoid(), overlap=0.5)
    for batch_size in (1, 5):
        found = predict(data, network, activation="sigmoid", batch_size=batch_size)
        torch.testing.assert_close(found[0][HEAD], expected[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(predict(blocks(), network, activation="sigmoid"), found)
    assert not list(data.store.folder.glob("*label*"))


def write_map(path, probability):
    np.savez_compressed(path, label=np.zeros(3), probability=np.round(255 * probability).astype(np.uint8))
    return path


def test_maps_are_the_last_channels(blocks, tmp_path):
    probability = np.random.default_rng(1).integers(0, 256, (1, 20, 30, 28)).astype(np.float32) / 255
    maps = {"A": [write_map(tmp_path / "A.npz", probability)]}
    data, without = blocks(maps=maps, views="three", fusion="fine"), blocks(views="three")
    drawn = data.draw(data.samples(["A"]), 6, generator())
    with_map = data.batch(drawn)[0]
    assert with_map.shape == (6, 2, *MATRIX)
    assert torch.equal(with_map[:, :1], without.batch(drawn)[0])
    found = predict(data, lambda image: image[:, 1:])
    np.testing.assert_allclose(found[0][HEAD], probability[0][HEAD], atol=1e-6)


@pytest.mark.parametrize(
    ("fusion", "maps", "expected"),
    [("mean", [0.8], 0.5), ("product", [0.8], 0.5), ("maximum", [0.6, 1.0], 0.8), ("fine", [0.8], 0.2)],
)
def test_fusion_of_a_probability_with_the_mean_of_the_maps(blocks, tmp_path, fusion, maps, expected):
    paths = [write_map(tmp_path / f"{p}.npz", np.full((1, 20, 30, 28), p, np.float32)) for p in maps]
    found = predict(blocks(maps={"A": paths}, fusion=fusion), lambda image: torch.full_like(image[:, :1], 0.2))[0]
    torch.testing.assert_close(found[HEAD], torch.full_like(found[HEAD], expected))


def test_the_product_of_certainties_is_no_division_by_zero():
    sure, never, perhaps = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.3, 0.3]), torch.tensor([0.9, 0.3])
    assert FUSIONS["product"](sure, never).tolist() == [0, 1, 0]
    assert FUSIONS["product"](*perhaps).item() == pytest.approx(0.27 / (0.27 + 0.07))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "avarage"}, "unknown fusion 'avarage'"),
        ({"distance_weight": "boundry"}, "did you mean 'boundary'"),
        ({"overlap": 1.0}, "overlap=1 is a share"),
        ({"structures": ("Parotid_L",)}, "would exchange Parotid_L"),
    ],
)
def test_options_out_of_their_range(blocks, options, message):
    with pytest.raises(InputError, match=message):
        blocks(**options)
