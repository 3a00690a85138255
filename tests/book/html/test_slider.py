"""Sliders on a page: what is shown, outlines, and keys, buttons and fingers in a browser."""

import re

import numpy as np
import pytest

from npcrepro.book.html.slider import slider
from npcrepro.book.parts import outline

STATES = {"0 mm": "<b>nothing</b>", "1 < 2 mm": "<b>little</b>", "2 mm": "<b>much</b>"}


def test_one_state_is_shown_and_the_control_waits_for_the_script():
    text = slider(STATES, "shift & more", "1 < 2 mm")
    states = re.findall(r'data-title="([^"]*)"( hidden)?', text)
    assert states == [("0 mm", " hidden"), ("1 &lt; 2 mm", ""), ("2 mm", " hidden")]
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

    fingers = new_page(has_touch=True, is_mobile=True)
    fingers.set_content(text)
    fingers.get_by_role("button", name="forward").tap()
    assert shown(fingers) == ["much"]
