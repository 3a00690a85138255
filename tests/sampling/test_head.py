import numpy as np

from npcrepro.sampling.head import bright, head_mask, zscore


def t1_head():
    """A head as T1 has it: air of 0, tissue around 100, a rim of fat around 300; its tumour is tissue."""
    random = np.random.default_rng(0)
    distance = np.sqrt(sum((axis - 15.5) ** 2 for axis in np.ogrid[:32, :32]))
    slice_ = np.where(distance < 14, np.where(distance < 11, 100.0, 300.0), 0.0)
    return slice_ + random.normal(0, 10, (4, 32, 32)), np.broadcast_to(distance < 14, (4, 32, 32))


def test_tissue_belongs_to_the_head_where_fat_is_much_brighter():
    image, head = t1_head()
    assert (head_mask(image) == head).mean() > 0.99
    assert not bright(image, share=1.0)[:, 14:18, 14:18].any()  # what Otsu's threshold itself would give
    image[:, 17:][image[:, 17:] > 200] = 100  # the rim of fat is no longer closed
    assert head_mask(image)[head].mean() > 0.99
    assert head_mask(image, share=1.0)[head].mean() < 0.5


def test_the_head_is_one_part_without_holes():
    for air in (0.0, -1000.0):
        image = np.full((2, 9, 9), air)
        image[:, 1:7, 1:7] = air + 500
        expected = image > air
        image[:, 3:5, 3:5] = air  # a hole
        image[:, 8, 8] = air + 500  # a speck in the air
        assert np.array_equal(head_mask(image), expected)
    flat = np.full((2, 3, 4), 7.0)
    assert not bright(flat).any()
    assert head_mask(flat).all()
    assert not zscore(flat, np.ones(flat.shape, bool)).any()
