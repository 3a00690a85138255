"""Slices to move through on a page: which are shown, their outlines, and the buttons in a browser."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from npcrepro.book.html.slice_browser import browser, outline

COLOURS = {"Reference": "#E69F00", "Net": "#56B4E9"}


def volume():
    """An image of seven slices and two masks: a square in slices 2 and 3, and one of half its area in slice 3."""
    image = np.arange(7 * 8 * 6, dtype=np.int16).reshape(7, 8, 6)
    reference, prediction = np.zeros((2, 7, 8, 6), bool)
    reference[2:4, 2:6, 1:5] = True
    prediction[3, 2:4, 1:5] = True
    return image, reference, prediction


def test_an_outline_goes_round_every_part_and_hole():
    mask = np.zeros((7, 7), bool)
    mask[0:5, 0:5], mask[2, 2], mask[6, 6] = True, False, True
    boxes = []
    for x, y, steps in re.findall(r"M(-?\d+) (-?\d+)l([-+\d]+)z", outline(mask)):
        moves = np.array(re.findall(r"[-+]\d+", steps), int).reshape(-1, 2)
        corners = np.cumsum([(int(x), int(y)), *moves.tolist()], axis=0)
        boxes.append((*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()))
    assert sorted(boxes) == [(0, 0, 10, 10), (4, 4, 6, 6), (12, 12, 14, 14)]  # half pixels
    assert outline(np.zeros((3, 3), bool)) == ""


def test_slices_with_a_mask_and_one_more_at_either_end_from_the_widest():
    image, reference, prediction = volume()
    text = browser(image, {"Net": {"Reference": reference, "Net": prediction}}, COLOURS, (3, 1, 1))
    states = re.findall(r'data-title="Slice (\d) of 7"( hidden)?', text)
    assert states == [("2", " hidden"), ("3", " hidden"), ("4", ""), ("5", " hidden")]
    assert re.findall(r"Net<br>DSC ([\d.]+)", text) == ["0.00", "0.67"]
    assert text.count("<path") == 3


def test_a_slice_is_in_the_page_once_for_all_its_panels_and_pixels_have_their_true_size():
    image, reference, prediction = volume()
    panels = {"Reference": {"Reference": reference}, "Other": {"Net": prediction}}
    text = browser(image, panels, COLOURS, (3, 0.5, 2))
    assert text.count("data:image/webp") == 4
    assert text.count("<use href=") == 4
    assert text.count('viewBox="0 0 12 4"') == 8
    assert "DSC" not in text


def test_pixels_of_unknown_size_are_squares():
    image, reference, _ = volume()
    text = browser(image, {"Net": {"Reference": reference}}, COLOURS, (np.nan, np.nan, np.nan))
    assert text.count('viewBox="0 0 6 8"') == text.count("scale(1 1)") == 4


def test_many_structures_are_painted_in_their_colours():
    image, reference, prediction = volume()
    third = np.zeros_like(reference)
    third[3, 7, 5] = True
    colours = COLOURS | {"Third": "#009E73"}
    text = browser(image, {"All": {"Reference": reference, "Net": prediction, "Third": third}}, colours, (3, 1, 1))
    assert "<path" not in text
    painted = [Image.open(BytesIO(b64decode(data))) for data in re.findall(r"data:image/png;base64,([^\"]+)", text)]
    assert len(painted) == 2
    pixels = np.asarray(painted[1].convert("RGBA"))
    assert pixels.shape == (8, 6, 4)
    assert [tuple(pixels[y, x].tolist()) for y, x in ((2, 1), (5, 1), (7, 5))] == [
        (0x56, 0xB4, 0xE9, 255), (0xE6, 0x9F, 0x00, 255), (0x00, 0x9E, 0x73, 255)
    ]  # fmt: skip
    assert pixels[0, 0, 3] == 0


def test_where_no_mask_shows_anything_every_slice_is_there_from_the_middle():
    image, reference, _ = volume()
    empty = np.zeros_like(reference)
    text = browser(image, {"Net": {"Reference": empty, "Net": empty}}, COLOURS, (3, 1, 1))
    states = re.findall(r'data-title="Slice (\d) of 7"( hidden)?', text)
    assert [number for number, _ in states] == list("1234567")
    assert [number for number, hidden in states if not hidden] == ["4"]
    assert "<path" not in text
    assert "DSC" not in text


def test_a_first_panel_without_a_mask_starts_in_the_middle_of_what_others_show():
    image, reference, _ = volume()
    panels = {"Reference": {"Reference": np.zeros_like(reference)}, "Net": {"Net": reference}}
    text = browser(image, panels, COLOURS, (3, 1, 1))
    states = re.findall(r'data-title="Slice (\d) of 7"( hidden)?', text)
    assert [number for number, hidden in states if not hidden] == ["4"]


def test_masks_on_other_grids_are_refused():
    image, reference, _ = volume()
    with pytest.raises(ValueError, match="do not lie on an image of"):
        browser(image[1:], {"Net": {"Reference": reference}}, COLOURS, (3, 1, 1))


@pytest.mark.browser
def test_buttons_keys_and_fingers_move_from_slice_to_slice(chromium_path):
    from playwright.sync_api import sync_playwright

    image, reference, prediction = volume()
    text = browser(image, {"Net": {"Reference": reference, "Net": prediction}}, COLOURS, (3, 1, 1))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_content(text)
        seen = [page.locator(".npc-state-title:visible").all_inner_texts()]
        for press in ("forward", "forward", "back"):
            page.get_by_role("button", name=press).click()
            seen.append(page.locator(".npc-state-title:visible").all_inner_texts())
        page.get_by_role("slider").press("Home")
        seen.append(page.locator(".npc-state-title:visible").all_inner_texts())
        fingers = chromium.new_context(
            has_touch=True, is_mobile=True, viewport={"width": 400, "height": 800}
        ).new_page()
        fingers.set_content(text)
        fingers.get_by_role("button", name="forward").tap()
        touched = fingers.locator(".npc-state-title:visible").all_inner_texts()
        pixels = page.locator("image:visible").evaluate("image => image.getBoundingClientRect().width > 0")
        chromium.close()
    assert seen == [["Slice 4 of 7"], ["Slice 5 of 7"], ["Slice 5 of 7"], ["Slice 4 of 7"], ["Slice 2 of 7"]]
    assert touched == ["Slice 5 of 7"]
    assert pixels
