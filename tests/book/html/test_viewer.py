"""The viewer of volumes: its page, and a tiny book in a real browser, in which a threshold is moved."""

import base64
import gzip
import io
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from viewer_cases import COLOURS, NET, OTHER, THRESHOLDS, described, notebook_with, patient

from npcrepro.base.errors import InputError
from npcrepro.book.build import book, pdf
from npcrepro.book.figures.slices import ERRORS
from npcrepro.book.html import viewer
from npcrepro.metrics.overlap import count


class TestPage:
    def test_names_are_text_and_every_patient_has_a_still_with_words(self):
        html = viewer.bundle([patient("<b>"), patient("P1")], COLOURS, THRESHOLDS)["text/html"]
        assert "<b>" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
        assert "U-Net &lt;2-D&gt;" in html
        assert html.count('<img alt="') == html.count("data:image/webp;base64,") == 2
        assert 'alt="P1, T1: an axial, a coronal and a sagittal slice through GTVp, with the outlines of Ref' in html
        assert '<figure hidden><img alt="P1, T1' in html
        assert '<div class="npc-live" hidden>' in html

    def test_a_name_does_not_end_the_data_early(self):
        content = viewer.bundle([patient("</script><b>")], COLOURS)
        assert described(content)["patients"][0]["name"] == "</script><b>"

    def test_each_method_starts_at_its_threshold_and_the_table_has_the_dsc_there(self):
        one = patient(second=True)
        content = viewer.bundle([one], COLOURS, THRESHOLDS)
        assert described(content)["thresholds"] == {NET: 0.3, OTHER: 0.5}
        dsc = count(one.probabilities[NET]["GTVp"] >= 0.3, one.masks["GTVp"]).dsc
        assert "<th>DSC of GTVp, U-Net &lt;2-D&gt;</th>" in content["text/html"]
        assert f"<td>{dsc:.2f}</td>" in content["text/html"]

    def test_masks_without_methods_are_shown_together_and_nothing_is_scored(self):
        colours = {"GTVp": "#E69F00", "GTVnd": "#56B4E9"}
        content = viewer.bundle([replace(patient(second=True), probabilities={})], colours)
        (about,) = described(content)["patients"]
        assert list(about["structures"][""]) == ["GTVp", "GTVnd"]
        assert "Threshold" not in content["text/html"]
        assert "DSC" not in content["text/html"]

    def test_a_single_slice_has_a_still_of_one_plane(self):
        one = patient()
        flat = replace(
            one,
            series={title: image[4:5] for title, image in one.series.items()},
            masks={"GTVp": one.masks["GTVp"][4:5]},
            probabilities={NET: {"GTVp": one.probabilities[NET]["GTVp"][4:5]}},
        )
        assert 'alt="P0, T1: an axial slice through GTVp' in viewer.bundle([flat], COLOURS)["text/html"]

    def test_nobody_to_show_is_said(self):
        with pytest.raises(InputError, match="no patients"):
            viewer.bundle([], COLOURS)


PAGE_BUDGET_BYTES = 2_000_000
STALE = "0123456789abcdef.nii.gz"
SHOWN = [patient("P0", second=True), patient("P1", (1, 12, 4), second=True)]


@pytest.fixture(scope="module")
def site(tmp_path_factory, repository):
    """A book of one page and one chapter with a viewer, served below a sub-path."""
    folder = tmp_path_factory.mktemp("viewer")
    root, output = folder / "root", folder / "npc" / "_build"
    shutil.copytree(repository / "book" / "_static", root / "book" / "_static")
    shutil.copyfile(repository / "_config.yml", root / "_config.yml")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n- file: notebooks/volumes\n")
    (root / "book" / "intro.md").write_text("# Without a viewer\n")
    (root / "book" / "references.bib").write_text("")
    executed = folder / "volumes.ipynb"
    executed.write_bytes(notebook_with(viewer.bundle(SHOWN, COLOURS, THRESHOLDS)))
    earlier = output / "html" / "_static" / "volumes" / STALE
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"of a private book")
    book._stage(root, output / "stage", {"volumes": executed}, book._vendored(repository, output))
    book._html(output / "stage", output)
    axe = output / "npm" / "node_modules" / "axe-core" / "axe.min.js"
    with pdf.served(folder) as address:
        yield SimpleNamespace(address=f"{address}/npc/_build/html", html=output / "html", axe=axe.read_text("utf-8"))


def go(page, address: str, state: str = "", script: str = "") -> SimpleNamespace:
    """Open an address and write down what it asks for; ``state`` is the one that its viewer comes to."""
    one = SimpleNamespace(page=page, asked=[], wrong=[])
    page.on("request", lambda request: one.asked.append(request.url))
    page.on("response", lambda response: one.wrong.append(response.url) if response.status >= 400 else None)
    page.on("requestfailed", lambda request: one.wrong.append(request.url))
    page.on("console", lambda message: one.wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: one.wrong.append(str(error)))
    if script:
        page.add_init_script(script)
    page.goto(address, wait_until="load")
    if state:
        page.locator(".npc-viewer").scroll_into_view_if_needed()
        page.wait_for_selector(f".npc-viewer[data-state={state}]", state="attached")
    return one


@pytest.fixture(scope="module")
def opened(new_page, site):
    """The chapter with its viewer ready, for all tests of what a reader does."""
    return go(new_page(has_touch=True), f"{site.address}/notebooks/volumes.html", "ready")


@pytest.fixture
def page(opened):
    """The same page, back at its start."""
    page = opened.page
    choose(page, "structure", "GTVp")
    for name in ("P1", "P0"):
        page.get_by_role("button", name=name).click()
        settle(page)
    page.get_by_role("button", name="All").click()
    for method, start in ((OTHER, 0.5), (NET, 0.3)):
        choose(page, "method", method)
        slide(page, "threshold", start)
    for box in page.get_by_role("checkbox").all():
        box.check()
    slide(page, "zoom", 1)
    slide(page, "plane='0'", 5)
    return page


def settle(page) -> None:
    page.wait_for_selector(".npc-viewer[data-state=ready]", state="attached")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")


def choose(page, of: str, title: str) -> None:
    """Of a list: series, structure or method."""
    page.locator(f".npc-{of}").select_option(title)
    settle(page)


def slide(page, name: str, value: float) -> None:
    page.locator(f"[data-{name}]").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )
    settle(page)


def label(page) -> str:
    return page.locator(".npc-slices").get_attribute("aria-label")


def scores(page, method: str) -> list[str]:
    """Threshold, DSC of the volume and of the slice, and millilitres, as the table says them."""
    row = page.locator(f'.npc-scores tr[data-title="{method}"]')
    return row.locator("output").all_inner_texts()


def pixels(page) -> np.ndarray:
    """What is on the canvas of the slices: (y, x, 4)."""
    script = """() => {
      const { width, height } = document.querySelector(".npc-slices");
      const data = document.querySelector(".npc-slices").getContext("2d").getImageData(0, 0, width, height).data;
      let text = ""; for (const value of data) text += String.fromCharCode(value);
      return [width, height, btoa(text)];
    }"""
    width, height, data = page.evaluate(script)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4).astype(int)


def drawn(page, colour: str) -> np.ndarray:
    """Where the canvas has a colour: (y, x)."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return np.abs(pixels(page)[..., :3] - wanted).max(axis=2) < 12


@pytest.mark.browser
@pytest.mark.slow
class TestThreshold:
    """The numbers of the page beside those of Python from the same maps."""

    @pytest.mark.parametrize(("structure", "z"), [("GTVp", 5), ("GTVnd", 1)])
    def test_dsc_follows_the_threshold_in_the_volume_and_in_the_slice(self, page, structure, z):
        one = SHOWN[0]
        choose(page, "structure", structure)
        choose(page, "method", NET)
        slide(page, "plane='0'", z)
        truth = one.masks[structure]
        for threshold in (0.05, 0.3, 0.62, 0.95):
            slide(page, "threshold", threshold)
            mask = np.rint(one.probabilities[NET][structure] * 255) / 255 >= threshold
            expected = [count(mask, truth).dsc, count(mask[z], truth[z]).dsc]
            millilitres = mask.sum() * np.prod(one.spacing_mm) / 1000
            said, *dsc, volume = scores(page, NET)
            assert said == f"{threshold:.2f}"
            assert dsc == [f"{value:.3f}" for value in expected]
            assert volume == f"{millilitres:.1f}"

    def test_each_method_keeps_its_own_threshold(self, page):
        slide(page, "threshold", 0.7)
        choose(page, "method", OTHER)
        assert page.get_by_label("Threshold").input_value() == "0.5"
        slide(page, "threshold", 0.2)
        assert (scores(page, NET)[0], scores(page, OTHER)[0]) == ("0.70", "0.20")
        page.get_by_role("button", name="P1").click()
        settle(page)
        assert (scores(page, NET)[0], scores(page, OTHER)[0]) == ("0.70", "0.20")

    def test_keys_move_it_and_a_screen_reader_hears_the_dsc(self, page):
        slider = page.get_by_label("Threshold")
        slider.press("ArrowRight")
        settle(page)
        assert slider.get_attribute("aria-valuetext") == f"0.31, DSC {scores(page, NET)[1]}"

    def test_a_mask_that_is_empty_has_no_outline_and_a_dsc_of_zero(self, page):
        page.get_by_role("checkbox", name=OTHER).uncheck()
        assert drawn(page, COLOURS[NET]).any()
        slide(page, "threshold", 0.95)
        assert scores(page, NET) == ["0.95", "0.000", "0.000", "0.0"]
        assert not drawn(page, COLOURS[NET]).any()

    def test_error_map_has_the_voxels_of_each_kind_and_a_legend(self, page):
        one = SHOWN[0]
        page.get_by_role("button", name="Axial").click()
        page.get_by_role("button", name="Error map").click()
        page.get_by_role("checkbox", name="Reference").uncheck()
        legend = page.locator(".npc-errors")
        assert [kind for kind in ERRORS if kind in legend.inner_text()] == list(ERRORS)
        for threshold in (0.3, 0.62):
            slide(page, "threshold", threshold)
            mask, truth = one.probabilities[NET]["GTVp"][5] >= threshold, one.masks["GTVp"][5]
            kinds = (mask & truth, mask & ~truth, ~mask & truth)
            image = pixels(page)[..., :3]
            voxel = image.shape[0] * image.shape[1] / truth.size
            for kind, colour in zip(kinds, ERRORS.values(), strict=True):
                # What is left of a pixel without the colour of the map is the grey of the image below.
                rest = image - 0.6 * np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
                shown = (np.ptp(rest, axis=2) < 6) & (rest.min(axis=2) > -6)
                assert shown.sum() == pytest.approx(kind.sum() * voxel, abs=2 * voxel)
        page.get_by_role("button", name="Outlines").click()
        assert not legend.is_visible()


@pytest.mark.browser
@pytest.mark.slow
class TestBrowser:
    def test_nothing_fails_and_no_other_host_is_asked_within_the_budget(self, opened, page, site):
        assert opened.wrong == []
        host = site.address.split("/npc")[0]
        assert [url for url in opened.asked if not url.startswith((host, "data:", "blob:"))] == []
        files = {url.removeprefix(site.address).split("?")[0] for url in opened.asked if url.startswith(site.address)}
        sent = [site.html / file.lstrip("/") for file in files if not re.search("/volumes/|niivue", file)]
        # Hosts compress what is text, and what is compressed already does not grow.
        assert sum(len(gzip.compress(file.read_bytes())) for file in sent) < PAGE_BUDGET_BYTES

    def test_a_page_loads_what_its_reader_comes_to(self, new_page, site):
        without = go(new_page(), f"{site.address}/book/intro.html")
        assert [url for url in without.asked if re.search("niivue|viewer|volumes/", url)] == []
        shown = go(new_page(), f"{site.address}/notebooks/volumes.html", "ready")
        assert not any("niivue" in url for url in shown.asked)
        # An image, and of one structure the reference and two methods.
        assert sum("/_static/volumes/" in url for url in shown.asked) == 4

    def test_volumes_of_an_earlier_book_are_gone_and_the_page_carries_none(self, site):
        assert not (site.html / "_static" / "volumes" / STALE).exists()
        assert len(list((site.html / "_static" / "volumes").glob("*.nii.gz"))) > 8
        source = next((site.html / "_sources" / "notebooks").glob("volumes.ipynb*")).read_text("utf-8")
        assert viewer.VOLUMES_TYPE not in source

    def test_outlines_lie_on_the_image_as_doctors_look_at_it(self, page):
        # The block is above (z), in front (y) and to the patient's left (x); noses are on the left.
        expected = {"Axial": (6 / 24, 22 / 32), "Coronal": (2.5 / 8, 22 / 32), "Sagittal": (2.5 / 8, 6 / 24)}
        for method in (NET, OTHER):
            page.get_by_role("checkbox", name=method).uncheck()
        for plane, place in expected.items():
            page.get_by_role("button", name=plane).click()
            settle(page)
            line, grey = drawn(page, COLOURS["Reference"]), pixels(page)[..., 0]
            rows, columns = np.nonzero(line)
            assert (rows.mean() / line.shape[0], columns.mean() / line.shape[1]) == pytest.approx(place, abs=0.04)
            inside = grey[rows.min() + 9 : rows.max() - 8, columns.min() + 9 : columns.max() - 8]
            outside = grey.copy()
            outside[rows.min() - 9 : rows.max() + 10, columns.min() - 9 : columns.max() + 60] = 0
            assert np.median(inside) > 200
            assert np.median(outside) < 60

    def test_zoom_enlarges_what_lies_around_the_cross(self, page):
        page.get_by_role("button", name="Axial").click()
        for method in (NET, OTHER):
            page.get_by_role("checkbox", name=method).uncheck()
        settle(page)
        before = drawn(page, COLOURS["Reference"])
        slide(page, "zoom", 2)
        after = drawn(page, COLOURS["Reference"])
        assert page.locator("[data-zoom] + output").inner_text() == "2 ×"
        width, wider = (np.ptp(np.nonzero(lines)[1]) for lines in (before, after))
        assert wider == pytest.approx(2 * width, abs=12)

    def test_sliders_keys_and_wheel_move_the_slice(self, page):
        canvas = page.locator(".npc-slices")
        assert "axial slice 6 of 8" in label(page)
        canvas.focus()
        page.keyboard.press("ArrowDown")
        settle(page)
        assert "axial slice 5 of 8" in label(page)
        before = pixels(page)
        slide(page, "plane='0'", 0)
        assert page.locator("[data-plane='0'] + output").inner_text() == "1 of 8"
        assert np.abs(pixels(page) - before).max() > 50
        page.evaluate("document.activeElement.blur()")
        canvas.hover()
        page.mouse.wheel(0, -30)  # scrolls the page
        settle(page)
        assert "axial slice 1 of 8" in label(page)
        canvas.focus()
        page.mouse.wheel(0, -30)
        settle(page)
        assert "axial slice 2 of 8" in label(page)

    @pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
    def test_click_in_a_slice_moves_the_cross(self, page, touch):
        page.get_by_role("button", name="Axial").click()
        canvas = page.locator(".npc-slices")
        box = canvas.bounding_box()
        (canvas.tap if touch else canvas.click)(position={"x": box["width"] * 0.1, "y": box["height"] * 0.1})
        settle(page)
        x, y = (int(re.search(rf"{plane} slice (\d+) of", label(page))[1]) for plane in ("sagittal", "coronal"))
        # At the patient's right and front.
        assert (x, y) == (29, 22)

    def test_boxes_take_outlines_away(self, page):
        assert drawn(page, COLOURS[NET]).any()
        page.get_by_role("checkbox", name=NET).uncheck()
        settle(page)
        assert not drawn(page, COLOURS[NET]).any()
        assert drawn(page, COLOURS["Reference"]).any()

    def test_another_image_and_another_patient_are_another_picture(self, page):
        before = pixels(page)
        choose(page, "series", "T2")
        assert np.abs(pixels(page) - before).max() > 50
        assert label(page).startswith("P0, T2")
        choose(page, "series", "T1")
        page.locator(".npc-cases tbody tr").nth(1).locator("td").nth(1).click()
        settle(page)
        assert label(page).startswith("P1, T1")
        assert page.get_by_role("button", name="P1").get_attribute("aria-pressed") == "true"
        assert page.get_by_role("button", name="P0").get_attribute("aria-pressed") == "false"
        assert np.abs(pixels(page) - before).max() > 50

    def test_3d_shows_a_head_that_keys_turn_and_thresholds_change(self, page):
        def seen():
            settle(page)
            return np.asarray(Image.open(io.BytesIO(page.locator(".npc-picture").screenshot())).convert("RGB"), float)

        page.get_by_role("button", name="3-D").click()
        page.wait_for_selector("[data-head]:visible")
        before = seen()
        assert before.std() > 3
        page.locator(".npc-slices").focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        turned = seen()
        assert np.abs(turned - before).max() > 20
        slide(page, "threshold", 0.05)
        assert np.abs(seen() - turned).max() > 20

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_checker_finds_nothing_serious(self, new_page, site, theme):
        one = go(new_page(color_scheme=theme), f"{site.address}/notebooks/volumes.html", "ready").page
        one.get_by_role("button", name="Error map").click()
        one.evaluate(site.axe)
        found = one.evaluate("axe.run('.npc-viewer', {resultTypes: ['violations']})")["violations"]
        assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == []

    def test_still_image_stays_without_javascript_and_3d_away_without_webgl2(self, new_page, site):
        gone = """
          const get = HTMLCanvasElement.prototype.getContext;
          HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind === "webgl2" ? null : get.call(this, kind, ...rest);
          };
        """
        address = f"{site.address}/notebooks/volumes.html"
        one = go(new_page(), address, "ready", gone).page
        one.get_by_role("button", name="3-D").click()
        one.wait_for_selector(".npc-no-3d:visible")
        settle(one)
        assert one.get_by_role("button", name="All").get_attribute("aria-pressed") == "true"
        assert drawn(one, COLOURS["Reference"]).any()

        plain = go(new_page(java_script_enabled=False), address).page
        assert plain.locator(".npc-still img").first.is_visible()
        assert not plain.locator(".npc-live").is_visible()

    def test_a_page_that_is_opened_as_a_file_says_why_its_picture_stays_still(self, new_page, site):
        one = go(new_page(), (site.html / "notebooks" / "volumes.html").as_uri()).page
        one.get_by_text("make serve shows the book with its viewers").wait_for()
        assert one.locator(".npc-still img").first.is_visible()

    def test_still_image_stays_where_a_volume_is_missing(self, new_page, site):
        page = new_page()
        page.route("**/volumes/*", lambda route: route.abort())
        one = go(page, f"{site.address}/notebooks/volumes.html", "still").page
        assert one.locator(".npc-still img").first.is_visible()
        assert "could not be loaded" in one.locator(".npc-note").inner_text()
