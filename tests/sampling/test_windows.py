from dataclasses import replace

import numpy as np
import pytest
import torch
from cohort_cases import edit
from core_cases import write_tiny
from scipy import ndimage

from npcrepro.base.errors import InputError
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.layout import read_cohort
from npcrepro.cohorts.prepared import prepare
from npcrepro.papers.chen2020.network import BaseNetwork
from npcrepro.protocol.registry import find_method
from npcrepro.runs import timing
from npcrepro.runs.timing import time_case
from npcrepro.sampling import windows as windows_module
from npcrepro.sampling.head import zscore
from npcrepro.sampling.samples import resize_in_plane
from npcrepro.sampling.windows import Region, Sample, WindowData, body_mask, head_box


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def head(depth=20, size=40, spacing_mm=(4.0, 4.0, 4.0), tumour=(slice(6, 12), slice(16, 22), slice(22, 28)), **fields):
    """A bright box in air as head, off the middle of the image, with a brighter tumour that is the label."""
    image = np.zeros((depth, size, size), np.float32)
    image[:, 6:36, 8:38] = 100
    label = np.zeros(image.shape, np.uint8)
    if tumour:
        label[tumour] = 1
        image[tumour] = 180
    image += np.random.default_rng(0).uniform(0, 10, image.shape)
    name = fields.get("name", "A")
    given = {"name": name, "patient": name, "image": image[None], "label": label, "spacing_mm": spacing_mm}
    return CaseArrays(**given | fields)


def windows(folder, *cases, matrix=(16, 32, 32), channels=("T1",), structures=("GTVp",), header=None, **options):
    names = {"channels": channels, "structures": {"GTVp": 1}} | (header or {})
    prepared = prepare(write_tiny(folder / "cohort", cases or [head()], **names), folder / "prepared")
    return WindowData(prepared, matrix, channels, structures, **options)


def threshold(value):
    """A network that is sure of what is brighter than a value."""
    return lambda image: torch.where(image[:, :1] > value, 40.0, -40.0)


def predict(data, network, case="A", activation="sigmoid", batch_size=2):
    return data.predict(network, case, activation=activation, batch_size=batch_size, device=torch.device("cpu"))


def slow_otsu_half(slice_):
    """Half of the threshold with the largest variance between the two parts, by trying each value."""
    values = np.unique(slice_)
    spread = [
        (slice_ <= v).mean() * (slice_ > v).mean() * (slice_[slice_ <= v].mean() - slice_[slice_ > v].mean()) ** 2
        for v in values[:-1]
    ]
    return values[int(np.argmax(spread))] / 2


def test_the_body_is_what_lies_above_half_of_the_threshold_of_each_slice():
    random = np.random.default_rng(0)
    image = random.gamma(2.0, 8.0, (2, 32, 32))
    image[:, 8:24, 8:24] = random.normal(100, 25, (2, 16, 16)).clip(0)
    image -= image.min(axis=(1, 2), keepdims=True)
    image[1] /= 50  # a slice far darker than the first has a body, too
    cut = np.array([slow_otsu_half(slice_) for slice_ in image])[:, None, None]
    clear = np.abs(image - cut) > image.max(axis=(1, 2), keepdims=True) / 128  # the library's histogram has 128 bins
    assert clear.mean() > 0.95
    for air in (0, -1000):  # of CT, whose threshold is negative
        assert np.array_equal(body_mask(image + air, closing=0)[clear], (image > cut)[clear])


def test_the_box_is_that_of_the_largest_part_and_a_region_is_cut_and_put_back():
    image = np.zeros((2, 12, 12), np.float32)
    image[:, 3:8, 4:10] = 50
    image[1, 0, 0] = 90  # a marker on the frame
    assert head_box(image) == (slice(3, 8), slice(4, 10))
    assert head_box(np.zeros((1, 4, 5))) == (slice(0, 4), slice(0, 5))
    volume = torch.arange(60.0).reshape(2, 5, 6)
    region = Region(size=(2, 5, 6), start=(0, 1, -2), matrix=(3, 3, 5))
    cut = region.cut(volume, (0, 0, 0), -1.0)
    assert cut[0].tolist() == [[-1.0, -1.0, *volume[0, row, :3].tolist()] for row in (1, 2, 3)]
    assert (cut[2] == -1).all()
    back = region.paste(cut)
    assert back.shape == volume.shape
    assert torch.equal(back[:, 1:4, :3], volume[:, 1:4, :3])
    assert back.sum() == volume[:, 1:4, :3].sum()
    assert torch.equal(region.cut(volume, (1, 1, 2), -1.0)[1:-1, 1:-1, 2:-2], cut)


def test_the_region_has_its_millimetres_around_the_middle_of_the_head(tmp_path):
    data = windows(tmp_path, head(), head(name="B", tumour=None, image=head().image))
    # 40 voxels of 4 mm on voxels of 128 / 32 mm; the head is in rows 6 to 35 and columns 8 to 37.
    assert data.region("A") == Region(size=(20, 40, 40), start=(0, 21 - 16, 23 - 16), matrix=(20, 32, 32))
    assert data.region("B") == data.region("A")
    assert torch.equal(*(predict(data, threshold(0.0), name) for name in "AB"))  # nothing reads the label
    unknown = windows(tmp_path / "u", head(spacing_mm=(1.0, 1.0, 1.0)), header={"spacing_known": False})
    assert unknown.region("A") == Region(size=(20, 32, 32), start=(0, 0, 0), matrix=(20, 32, 32))


def test_what_lies_outside_the_region_cannot_be_found(tmp_path):
    covered = Region(size=(1, 8, 4), start=(0, 3, -1), matrix=(1, 4, 4)).covers((4, 4))
    # By the middle of voxels: rows at 1, 3, 5 and 7.
    assert np.array_equal(covered, np.outer([0, 1, 1, 0], [1, 1, 1, 0]))
    case = head(tumour=(slice(6, 12), slice(18, 24), slice(30, 38)))
    data = windows(tmp_path, case, head(name="B", tumour=None), field_mm=64.0, matrix=(16, 16, 16))
    # The region takes 16 columns around the middle, 23: 15 to 30.
    assert data.share_outside("A") == {"GTVp": 7 / 8}
    assert np.isnan(data.share_outside("B")["GTVp"])
    probability = predict(data, threshold(-99.0))  # sure everywhere
    inside = torch.from_numpy(data.region("A").covers((40, 40)))
    assert probability[0][:, inside].min() == pytest.approx(1)
    assert probability[0][:, ~inside].max() == 0


def test_series_are_normalised_and_clipped_by_their_names(tmp_path):
    case = head()
    other = np.where(case.image > 50, 5 * case.image, 20 + case.image)[:, :, ::-1]
    case = head(image=np.concatenate([case.image, other, np.sqrt(case.image)]))
    data = windows(tmp_path, case, channels=("T1", "CET1", "PET"), clip={"T1": (-0.5, 0.25), "CET1": (-99, 99)})
    image, _ = data.batch([Sample("A", 0)])
    assert (image.dtype, image.shape) == (torch.float32, (1, 3, 16, 32, 32))
    assert (image[:, 0].min(), image[:, 0].max()) == pytest.approx((-0.5, 0.25))
    # The region takes voxels as they are, from row 5 and column 7.
    volume = case.image.astype(np.float32)
    closing = round(0.04 * 128 / 4)
    normal = zscore(volume[1], body_mask(volume[1], closing))[:16, 5:37, 7:39]
    np.testing.assert_allclose(image[0, 1].numpy(), normal, atol=1e-4)
    body = body_mask(volume[2], closing)
    low, high = np.percentile(zscore(volume[2], body)[body], (1, 99))
    assert (image[:, 2].min().item(), image[:, 2].max().item()) == pytest.approx((low, high), abs=1e-4)


def test_slices_may_be_resampled_before_they_are_normalised_and_clipped(tmp_path):
    """A bright voxel is a quarter of a pixel here: clipped first, the pixel stays below the limit; afterwards, not."""
    case = head(size=64, spacing_mm=(4.0, 2.0, 2.0))
    case.image[0, :, 20, 20] = 5000
    made = {
        first: windows(tmp_path / str(first), case, clip={"T1": (-1.0, 2.0)}, resampled_first=first)
        for first in (False, True)
    }
    image = {first: data.batch([Sample("A", 0)])[0][0, 0] for first, data in made.items()}
    _, y, x = (start for start in made[True].region("A").start)
    place = (slice(None), 10 - y, 10 - x)
    assert image[True][place] == pytest.approx(2.0)
    assert image[False][place].max() < 1.5
    region = made[True].region("A")
    volume = resize_in_plane(torch.from_numpy(case.image[0].astype(np.float32))[:, None], region.size[1:])[:, 0].numpy()
    normal = zscore(volume, body_mask(volume, round(0.04 * 32))).clip(-1, 2)
    expected = region.cut(torch.from_numpy(normal), (0, 0, 0), -1.0)[:16]
    torch.testing.assert_close(image[True], expected)


def test_a_case_without_the_first_series_has_one_region_and_that_series_is_zero(tmp_path, monkeypatch):
    """Image and label are cut by the same region, even where methods with other channels make them one by one."""
    case = head()
    both = np.concatenate([case.image, np.roll(case.image, 3, axis=3)])
    root = tmp_path / "cohort"
    write_tiny(root, [head(name=name, image=both) for name in "AB"], channels=("T1", "T2"))
    (root / "imagesTr" / "B_0000.nii.gz").unlink()
    edit(root, missing_series="zero")
    prepared = prepare(read_cohort(root), tmp_path / "prepared")
    first, second, stacked = (
        WindowData(prepared, (16, 32, 32), channels, ("GTVp",)) for channels in (("T1",), ("T2",), ("T1", "T2"))
    )
    assert not first.batch([Sample("B", -2, 3)])[0].any()
    assert second.region("B").start == (0, 5, 10)  # of T2, which lies three columns further
    alone, same = second.batch([Sample("B", 0)])
    monkeypatch.setattr(windows_module, "body_mask", lambda *arguments: pytest.fail("made again"))
    image, label = stacked.batch([Sample("B", 0)])
    torch.testing.assert_close(image[:, 1:], alone)
    assert torch.equal(label, same)
    assert label[0, 0].any(dim=0).any(dim=0).nonzero().flatten().tolist() == list(range(22 - 10, 28 - 10))


def test_windows_slide_and_the_last_one_ends_with_the_volume(tmp_path):
    starts = {5: [0], 17: [0, 1], 20: [0, 4], 23: [0, 4, 7]}
    shown = slice(1, 4), slice(16, 22), slice(16, 22)
    data = windows(tmp_path, *(head(n, name=str(n), tumour=shown if n > 5 else None) for n in starts))
    expected = [Sample(str(n), z, 0, 0) for n, firsts in starts.items() for z in firsts]
    assert data.samples([str(n) for n in starts]) == expected
    # A case without a structure gives windows, unless no case has one.
    assert data.samples(["5"]) == []
    with pytest.raises(InputError, match="three sides"):
        windows(tmp_path / "slice", matrix=(32, 32))


def test_draws_are_all_windows_alike_moved_by_up_to_the_shift(tmp_path):
    data = windows(tmp_path, head(24))
    assert data.shift == (4, 4, 4)  # 32 pixels of 256 are 4 of 32
    samples = [Sample("A", z) for z in (100, 200, 300)]  # far apart, so that the move can be told
    drawn = data.draw(samples, 3000, generator())
    nearest = [round(sample.z, -2) for sample in drawn]
    assert {z: nearest.count(z) for z in (100, 200, 300)} == pytest.approx({100: 1000, 200: 1000, 300: 1000}, abs=100)
    assert {sample.z - z for sample, z in zip(drawn, nearest, strict=True)} == set(range(-4, 5))
    assert {sample.y for sample in drawn} == {sample.x for sample in drawn} == set(range(-4, 5))
    assert abs(np.corrcoef([s.y for s in drawn], [s.x for s in drawn])[0, 1]) < 0.1
    assert data.draw(samples, 50, generator(1)) == data.draw(samples, 50, generator(1))
    assert data.draw(samples, 50, generator(1)) != data.draw(samples, 50, generator(2))


def test_a_moved_window_shows_what_lies_there(tmp_path):
    data = windows(tmp_path, head(24), clip={"T1": (-99, 99)})
    still, label = data.batch([Sample("A", 4)])
    moved, label_moved = data.batch([Sample("A", 6, -3, 2)])
    assert torch.equal(moved[..., :-2, 3:, :-2], still[..., 2:, :-3, 2:])
    assert torch.equal(label_moved[..., :-2, 3:, :-2], label[..., 2:, :-3, 2:])
    # Tissue beyond the region comes in, not its edge.
    assert moved[0, 0, 0, 0].std() > 0
    before, _ = data.batch([Sample("A", -3)])
    assert (before[0, 0, :3] == -99).all()
    assert torch.equal(before[0, 0, 3:], data.batch([Sample("A", 0)])[0][0, 0, :-3])


def test_a_structure_that_was_not_contoured_is_unknown_everywhere(tmp_path):
    case = head(6, not_contoured=("GTVnd",), tumour=(slice(1, 4), slice(16, 22), slice(16, 22)))
    header = {"structures": {"GTVp": 1, "GTVnd": 2}}
    data = windows(tmp_path, case, structures=("GTVnd", "GTVp"), header=header)
    _, label = data.batch([Sample("A", -2, 4, -4)])
    assert (label[:, 0] == NOT_CONTOURED).all()
    assert label[:, 1].unique().tolist() == [0, 1]
    assert data.samples(["A"]) == [Sample("A", 0)]
    assert np.isnan(data.share_outside("A")["GTVnd"])


@pytest.mark.parametrize(("depth", "spacing_mm"), [(23, (4.0, 4.0, 4.0)), (7, (5.0, 2.5, 2.5)), (23, (3.0, 6.0, 3.5))])
def test_a_box_comes_back_at_its_place(tmp_path, spacing_mm, depth):
    case = head(depth, spacing_mm=spacing_mm, tumour=(slice(2, 6), slice(14, 24), slice(20, 30)))
    data = windows(tmp_path, case, matrix=(16, 64, 64), clip={"T1": (-3, 3)}, field_mm=160.0)
    image, label = data.batch([Sample("A", 0)])
    inside, around = image[label == 1].median(), image[(label == 0) & (image > -0.5)].median()
    probability = predict(data, threshold((inside + around) / 2))
    assert (probability.dtype, probability.shape) == (torch.float32, (1, *case.label.shape))
    found = probability[0].numpy() >= 0.5
    np.testing.assert_allclose(ndimage.center_of_mass(found), ndimage.center_of_mass(case.label), atol=0.5)
    assert found.sum() == pytest.approx(case.label.sum(), rel=0.15)
    assert np.array_equal(found.any(axis=(1, 2)), case.label.any(axis=(1, 2)))


def test_windows_that_overlap_are_averaged(tmp_path):
    data = windows(tmp_path)  # 20 slices: windows from 0 and from 4
    for batch_size in (1, 2, 5):
        scores = iter([float("inf"), 0.0])  # the first window is sure of itself, the second says nothing

        def network(image, scores=scores):
            return torch.stack([torch.full(image.shape[2:], next(scores)) for _ in image])[:, None]

        middle = predict(data, network, batch_size=batch_size)[0, :, 20, 20]
        assert middle.tolist() == pytest.approx([1.0] * 4 + [0.75] * 12 + [0.5] * 4)


def test_the_time_of_a_case_is_told_apart_by_what_it_goes_into(tmp_path, monkeypatch):
    cohort = write_tiny(tmp_path / "c", [head(), head(name="B")], channels=("T1",), structures={"GTVp": 1})
    paper, method = find_method("chen2020/unet-3d-t1")
    size = replace(paper.profile("smoke"), batch_size=1)
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: sum(clock))

    def slow(owner, name, seconds):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **more: (clock.append(seconds), function(*given, **more))[1])

    slow(timing, "prepare", 100)
    slow(WindowData, "_find_region", 20)
    slow(WindowData, "batch", 3)
    slow(Region, "paste", 0.5)
    slow(BaseNetwork, "forward", 7)
    found = time_case(cohort, "B", method, size, "cpu")
    # 20 slices are two windows of 16.
    assert found == (100 + 20 + 2 * 3, 2 * 7, 0.5, 2, "cpu")
    assert found.seconds == 140.5
