"""Slices with contours, errors and planes, by what is drawn."""

from types import SimpleNamespace

import numpy as np
from matplotlib.colors import to_rgb

from npcrepro.book.figures import slices, style
from npcrepro.book.figures.slices import ERRORS
from npcrepro.papers.luo2020.protocol import PAPER
from npcrepro.protocol.settings import Settings


def drawn(figure):
    """Axes that show something."""
    return [axis for axis in figure.axes if axis.images]


def pixels(axis, layer=0):
    return np.asarray(axis.images[layer].get_array())


def test_errors_have_their_colours_and_the_dsc_of_the_slice():
    reference = np.zeros((3, 20, 20), bool)
    reference[1, 5:15, 5:15] = True
    predictions = {"unet": np.roll(reference, 5, axis=2), "fcn8": reference, "two-stage": reference & False}
    patient = np.zeros(reference.shape), reference, predictions, (np.nan,) * 3
    figure = slices.errors({"P0": patient}, ["axial", "coronal"], PAPER)
    assert len(drawn(figure)) == len(figure.axes) == 6
    assert [axis.get_title() for axis in drawn(figure)[:3]] == ["U-Net", "FCN-8", "Proposed"]
    assert [axis.get_xlabel() for axis in drawn(figure)[:3]] == ["0.50", "1.00", "0.00"]
    layer = pixels(drawn(figure)[0], 1)
    counts = {name: int((layer[..., :3] == to_rgb(colour)).all(axis=2).sum()) for name, colour in ERRORS.items()}
    assert counts == {"found (TP)": 50, "wrongly marked (FP)": 50, "missed (FN)": 50}


def test_planes_go_through_the_reference_and_stand_upright():
    image = np.arange(6 * 8 * 10.0).reshape(6, 8, 10)
    reference = np.zeros(image.shape, bool)
    reference[4, 2, 1:9] = reference[4, 2:5, 7] = reference[1:6, 2, 7] = True
    outlines = {"Reference": (reference, style.REFERENCE), "U-Net": (reference, "#56B4E9")}
    figure = slices.planes(image, outlines, (3.0, 1.0, 0.5))
    axial, coronal, sagittal = map(pixels, drawn(figure))
    assert np.array_equal(axial, image[4])
    assert np.array_equal(coronal, image[::-1, 2])
    assert np.array_equal(sagittal, image[::-1, :, 7])
    assert [axis.get_aspect() for axis in drawn(figure)] == [2.0, 6.0, 3.0]
    colours = [line.get_edgecolor()[0][:3].tolist() for line in drawn(figure)[0].collections]
    assert colours == [list(to_rgb(colour)) for _, colour in outlines.values()]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Reference", "U-Net"]


def test_images_that_may_not_be_published_are_drawn_in_a_private_book_alone(monkeypatch):
    drawn, said = [], []
    monkeypatch.setattr("IPython.display.display", lambda content: said.append(content.data))
    for publishable, private in ((False, False), (False, True), (True, False)):
        cohort = SimpleNamespace(name="mine", publishable=publishable, licence="")
        slices.show_images(cohort, Settings(private=private), drawn.append, (publishable, private))
    assert drawn == [(False, True), (True, False)]
    assert ["mine may not be published (its dataset.json names no licence)" in line for line in said] == [True]
