"""Sliders and slices to move through on a page: what is shown, outlines, and keys, buttons and fingers in a browser."""

import re

import numpy as np
import pytest

from npcrepro.book.html.parts import outline
from npcrepro.book.html.slice_browser import browser
from npcrepro.book.html.slider import slider

COLOURS = {"Reference": "#E69F00", "Net": "#56B4E9"}
STATES = {"0 mm": "<b>nothing</b>", "1 < 2 mm": "<b>little</b>", "2 mm": "<b>much</b>"}


def volume():
    """An image of seven slices and two masks: a square in slices 2 and 3, and one of half its area in slice 3."""
    image = np.arange(7 * 8 * 6, dtype=np.int16).reshape(7, 8, 6)
    reference, prediction = np.zeros((2, 7, 8, 6), bool)
    reference[2:4, 2:6, 1:5] = True
    prediction[3, 2:4, 1:5] = True
    return image, reference, prediction


def states(text):
    return re.findall(r'data-title="([^"]*)"( hidden)?', text)


def start(text):
    """Numbers of the slices, and those that are shown at the start."""
    found = [(int(title.split()[1]), hidden) for title, hidden in states(text)]
    return [number for number, _ in found], [number for number, hidden in found if not hidden]


def test_one_state_is_shown_and_the_control_waits_for_the_script():
    text = slider(STATES, "shift & more", "1 < 2 mm")
    assert states(text) == [("0 mm", " hidden"), ("1 &lt; 2 mm", ""), ("2 mm", " hidden")]
    assert '<div hidden><label for="' in text
    assert 'min="0" max="2" value="1"' in text
    assert "shift &amp; more" in text
    assert "http" not in text
    with pytest.raises(ValueError, match="none of the states"):
        slider(STATES, "shift", "3 mm")


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
    assert start(text) == ([2, 3, 4, 5], [4])
    assert re.findall(r"Net<br>DSC ([\d.]+)", text) == ["0.00", "0.67"]
    assert text.count("<path") == 3


def test_a_slice_is_in_the_page_once_for_all_its_panels_and_pixels_have_their_true_size():
    image, reference, prediction = volume()
    panels = {"Reference": {"Reference": reference}, "Other": {"Net": prediction}}
    text = browser(image, panels, COLOURS, (3, 0.5, 2))
    assert text.count("data:image/webp") == text.count("<use href=") == 4
    assert text.count('viewBox="0 0 12 4"') == 8
    assert "DSC" not in text
    unknown = browser(image, panels, COLOURS, (np.nan, np.nan, np.nan))
    assert unknown.count('viewBox="0 0 6 8"') == unknown.count("scale(1 1)") == 8


def test_masks_on_other_grids_are_refused():
    image, reference, _ = volume()
    with pytest.raises(ValueError, match="do not lie on an image of"):
        browser(image[1:], {"Net": {"Reference": reference}}, COLOURS, (3, 1, 1))


@pytest.mark.browser
@pytest.mark.slow
def test_keys_buttons_and_fingers_move_it_and_without_javascript_one_state_stays(new_page):
    text = slider(STATES, "shift", "1 < 2 mm")

    def shown(page):
        return page.locator("b:visible").all_inner_texts()

    page = new_page()
    page.set_content(text)
    control = page.get_by_label("shift")
    assert (shown(page), control.get_attribute("aria-valuetext")) == (["little"], "1 < 2 mm")
    for key, state, title in (("ArrowRight", "much", "2 mm"), ("Home", "nothing", "0 mm"), ("End", "much", "2 mm")):
        control.press(key)
        assert (shown(page), control.get_attribute("aria-valuetext")) == ([state], title)
    for button, state in (("forward", "much"), ("back", "little"), ("back", "nothing"), ("back", "nothing")):
        page.get_by_role("button", name=button).click()
        assert shown(page) == [state]

    plain = new_page(java_script_enabled=False)
    plain.set_content(text)
    assert shown(plain) == ["little"]
    assert not plain.locator("input").is_visible()

    image, reference, prediction = volume()
    fingers = new_page(has_touch=True, is_mobile=True)
    fingers.set_content(browser(image, {"Net": {"Reference": reference, "Net": prediction}}, COLOURS, (3, 1, 1)))
    fingers.get_by_role("button", name="forward").tap()
    assert fingers.locator(".npc-state-title:visible").all_inner_texts() == ["Slice 5 of 7"]
    assert fingers.locator("image:visible").evaluate("image => image.getBoundingClientRect().width > 0")
