"""The viewer of volumes: its files, its place in the book, and a tiny book in a real browser."""

import base64
import gzip
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from npcrepro.base.errors import InputError
from npcrepro.book.build import book, pdf
from npcrepro.book.figures import style
from npcrepro.book.html import viewer
from npcrepro.protocol.settings import Settings

SPACING_MM = (3.0, 1.0, 1.25)
COLOURS = {"Reference": "#E69F00", "U-Net <2-D>": "#56B4E9"}


def block(*corner: int) -> np.ndarray:
    mask = np.zeros((8, 24, 32), bool)
    z, y, x = corner
    mask[z : z + 3, y : y + 6, x : x + 8] = True
    return mask


def patient(name: str = "P0", corner=(4, 3, 18)) -> viewer.Patient:
    """A bright block to the left, in front and above, where the reference is; the prediction is one voxel off."""
    reference = block(*corner)
    bright = 40 + 900 * reference + np.arange(32) % 2  # not of one grey, as no image is
    series = {"T1": bright.astype(np.float32), "T2": -bright.astype(np.int16)}
    outlines = {"Reference": reference, "U-Net <2-D>": np.roll(reference, 1, axis=2)}
    return viewer.Patient(name, series, outlines, SPACING_MM, {"DSC": "0.88"})


def volumes(content: dict) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in content[viewer.VOLUMES_TYPE].items()}


def described(content: dict) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', content["text/html"])[1])


def read(content: bytes, folder: Path) -> sitk.Image:
    path = folder / "volume.nii.gz"
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


class TestVolumes:
    def test_every_series_and_outline_is_a_small_file_on_one_upright_grid(self, tmp_path):
        content = viewer.bundle([patient()], COLOURS)
        files, (about,) = volumes(content), described(content)["patients"]
        assert list(about["series"]) == ["T1", "T2"]
        assert list(about["outlines"]) == list(COLOURS)
        for name in (*about["series"].values(), *about["outlines"].values()):
            image = read(files[name], tmp_path)
            assert image.GetPixelID() == sitk.sitkUInt8
            assert image.GetSize() == (32, 24, 8)
            assert image.GetSpacing() == (1.25, 1, 3)
            # To the right, to the front and up, as viewers of NIfTI like it.
            assert image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)

    def test_masks_keep_every_voxel_and_images_their_order(self, tmp_path):
        one = patient()
        content = viewer.bundle([one], COLOURS)
        files, (about,) = volumes(content), described(content)["patients"]
        mask = sitk.GetArrayFromImage(read(files[about["outlines"]["Reference"]], tmp_path))
        # To the right and to the front, where the arrays go to the left and to the back.
        np.testing.assert_array_equal(mask[:, ::-1, ::-1], one.outlines["Reference"])
        image = sitk.GetArrayFromImage(read(files[about["series"]["T2"]], tmp_path))[:, ::-1, ::-1]
        assert image.min() == 0
        assert image.max() == 255
        assert image[one.outlines["Reference"]].max() < image[~one.outlines["Reference"]].min()

    def test_axes_of_the_scanner_become_those_of_the_patient(self, tmp_path):
        """A sagittal series: slices go to the left, rows down, columns to the back."""
        one = patient()
        turned = {title: np.ascontiguousarray(a.transpose(2, 0, 1)[:, ::-1]) for title, a in one.series.items()}
        masks = {title: np.ascontiguousarray(a.transpose(2, 0, 1)[:, ::-1]) for title, a in one.outlines.items()}
        geometry = {"origin": [9, 9, 9], "direction": [0, 0, 1, 1, 0, 0, 0, -1, 0]}
        z, y, x = SPACING_MM
        content = viewer.bundle([viewer.Patient("P0", turned, masks, (x, z, y), {}, geometry)], COLOURS)
        assert volumes(content) == volumes(viewer.bundle([replace(one, about={})], COLOURS))

    def test_a_large_patient_is_cut_to_the_masks_and_then_thinned(self, tmp_path, monkeypatch):
        monkeypatch.setattr(viewer, "MARGIN_MM", 3.0)
        sizes = []
        for limit in (8 * 24 * 32 * 2, 8 * 24 * 32, 500):
            monkeypatch.setattr(viewer, "SET_VOXELS", limit)
            content = viewer.bundle([patient()], COLOURS)
            about = described(content)["patients"][0]
            image = read(volumes(content)[about["series"]["T1"]], tmp_path)
            mask = sitk.GetArrayFromImage(read(volumes(content)[about["outlines"]["Reference"]], tmp_path))
            assert 2 * mask.size <= limit
            sizes.append((image.GetSize(), image.GetSpacing()))
            assert mask.any()
        whole, cut, thin = sizes
        assert whole[0] == (32, 24, 8)
        # Both outlines together are nine voxels wide; three millimetres are three voxels in a slice, and one slice.
        assert cut == ((9 + 6, 6 + 6, 3 + 2), (1.25, 1, 3))
        assert thin[1] == (2 * 1.25, 2, 3)

    def test_different_grids_and_nothing_at_all_are_refused(self):
        one = patient()
        for patients, words in (
            ([replace(one, outlines={"Reference": block(0, 0, 0)[:, 1:]})], "P0 needs series and outlines on one grid"),
            ([replace(one, series={})], "P0 needs series"),
            ([], "no patients"),
        ):
            with pytest.raises(InputError, match=words):
                viewer.bundle(patients, COLOURS)


class TestPage:
    def test_names_are_text_and_every_patient_has_a_still_with_words(self):
        html = viewer.bundle([patient("<b>"), patient("P1")], COLOURS)["text/html"]
        assert "<b>" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
        assert "U-Net &lt;2-D&gt;" in html
        assert html.count('<img alt="') == html.count("data:image/webp;base64,") == 2
        assert html.count('" hidden>') == 2  # the second still, and the controls
        assert 'alt="P1, T1: an axial, a coronal and a sagittal slice through Reference' in html

    def test_a_name_does_not_end_the_data_early(self):
        content = viewer.bundle([patient("</script><b>")], COLOURS)
        assert described(content)["patients"][0]["name"] == "</script><b>"

    def test_chapter_shows_patients_with_their_scores_and_no_image_that_must_not_be_shown(self, monkeypatch):
        one = patient()
        shown = SimpleNamespace(
            case="P0",
            reference=one.outlines["Reference"],
            predictions={"net": one.outlines["U-Net <2-D>"], "other": one.outlines["Reference"]},
            spacing_mm=SPACING_MM,
        )
        case = SimpleNamespace(image=np.stack(list(one.series.values())), geometry=None)
        methods = [SimpleNamespace(name=name, title=f"The {name}") for name in ("net", "other")]
        chapter = SimpleNamespace(
            ranked=lambda: ("net", None),
            patients_shown=lambda count: [shown][:count],
            prepared=SimpleNamespace(case=lambda name: case, channels=("T1", "T2")),
            data=SimpleNamespace(channels=("T2",)),
            paper=SimpleNamespace(methods=methods, profiles=()),
            source=SimpleNamespace(publishable=True, name="ours", licence=""),
            settings=Settings(),
        )
        displayed = []
        monkeypatch.setattr("IPython.display.display", lambda content, raw=False: displayed.append(content))
        viewer.show_chapter(chapter, "missing")
        (about,) = described(displayed[0])["patients"]
        assert list(about["series"]) == ["T2"]
        assert list(about["outlines"]) == ["Reference", "The net"]
        assert described(displayed[0])["colours"]["The net"] == style.METHODS[0]
        assert "<td>0.88</td>" in displayed[0]["text/html"]

        chapter.source.publishable = False
        viewer.show_chapter(chapter, "net")
        assert "may not be published" in displayed[1].data
        assert len(displayed) == 2


def notebook_with(content: dict) -> bytes:
    output = nbformat.v4.new_output("display_data", content)
    cell = nbformat.v4.new_code_cell("viewer.show(patients, colours)", outputs=[output], execution_count=1)
    title = nbformat.v4.new_markdown_cell("# Volumes – all")
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return nbformat.writes(nbformat.v4.new_notebook(cells=[title, cell], metadata=language)).encode()


class TestUnpack:
    def test_volumes_leave_the_notebook_and_nothing_else_does(self):
        content = viewer.bundle([patient()], COLOURS)
        page, files = viewer.unpack(notebook_with(content))
        assert files == volumes(content)
        left = nbformat.reads(page.decode(), 4)
        nbformat.validate(left)
        assert left.cells[0].source == "# Volumes – all"
        assert left.cells[1].outputs[0].data == {k: v for k, v in content.items() if k != viewer.VOLUMES_TYPE}


PAGE_BUDGET_BYTES = 3_000_000
STALE = "0123456789abcdef.nii.gz"


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
    executed.write_bytes(notebook_with(viewer.bundle([patient("P0"), patient("P1", (1, 12, 4))], COLOURS)))
    earlier = output / "html" / "_static" / "volumes" / STALE
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"of a private book")
    book._stage(root, output / "stage", {"volumes": executed}, book._vendored(repository, output))
    book._html(output / "stage", output)
    with pdf.served(folder) as address:
        yield SimpleNamespace(address=f"{address}/npc/_build/html", html=output / "html")


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
    for choose in ("P1", "P0"):
        page.get_by_role("button", name=choose).click()
        settle(page)
    return page


def settle(page) -> None:
    page.wait_for_selector(".npc-viewer[data-state=ready]", state="attached")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")


def seen(page) -> np.ndarray:
    """What is on the screen where the volumes are, without outlines: grey (y, x)."""
    page.evaluate("document.querySelector('.npc-lines').style.visibility = 'hidden'")
    data = page.locator(".npc-picture").screenshot()
    page.evaluate("document.querySelector('.npc-lines').style.visibility = ''")
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)


def drawn(page, colour: str) -> np.ndarray:
    """Where the outlines have this colour: (y, x), as large as `seen`."""
    script = """() => {
      const lines = document.querySelector(".npc-lines");
      const { width, height } = lines;
      const data = lines.getContext("2d").getImageData(0, 0, width, height).data;
      let text = ""; for (const value of data) text += String.fromCharCode(value);
      return [width, height, btoa(text)];
    }"""
    width, height, data = page.evaluate(script)
    pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4).astype(int)
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return (np.abs(pixels[..., :3] - wanted).max(axis=2) < 12) & (pixels[..., 3] > 128)


def slide(page, name: str, value: int) -> None:
    page.locator(f"[data-{name}]").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )
    settle(page)


def label(page) -> str:
    return page.locator(".npc-lines").get_attribute("aria-label")


@pytest.mark.browser
@pytest.mark.slow
class TestBrowser:
    def test_nothing_fails_and_no_other_host_is_asked_within_the_budget(self, opened, page, site):
        assert opened.wrong == []
        host = site.address.split("/npc")[0]
        assert [url for url in opened.asked if not url.startswith((host, "data:", "blob:"))] == []
        files = {url.removeprefix(site.address).split("?")[0] for url in opened.asked if url.startswith(site.address)}
        sent = [site.html / file.lstrip("/") for file in files if "/volumes/" not in file]
        # Hosts compress what is text, and what is compressed already does not grow.
        sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in sent}
        assert "niivue.mjs.gz" in sizes
        assert sum(sizes.values()) < PAGE_BUDGET_BYTES

    def test_a_page_without_viewer_loads_nothing_of_it(self, new_page, site):
        one = go(new_page(), f"{site.address}/book/intro.html")
        assert [url for url in one.asked if re.search("niivue|viewer|volumes/", url)] == []

    def test_volumes_of_an_earlier_book_are_gone_and_the_page_carries_none(self, site):
        assert not (site.html / "_static" / "volumes" / STALE).exists()
        assert len(list((site.html / "_static" / "volumes").glob("*.nii.gz"))) == 8
        source = next((site.html / "_sources" / "notebooks").glob("volumes.ipynb*")).read_text("utf-8")
        assert viewer.VOLUMES_TYPE not in source

    def test_outlines_lie_on_the_image_as_doctors_look_at_it(self, page):
        grey, line = seen(page), drawn(page, COLOURS["Reference"])
        # A screenshot begins and ends with whole pixels.
        height, width = np.minimum(grey.shape, line.shape)
        grey, line = grey[:height, :width], line[:height, :width]
        # Tiles: axial above coronal on the left, sagittal on the right below the 3-D view.
        x_mm, y_mm, z_mm = 32 * 1.25, 24 * 1.0, 8 * 3.0
        across, up = round(width * x_mm / (x_mm + y_mm)), round(height * y_mm / (y_mm + z_mm))
        tiles = {
            "axial": (slice(0, up), slice(0, across)),
            "coronal": (slice(up, None), slice(0, across)),
            "sagittal": (slice(up, None), slice(across, None)),
        }
        for name, tile in tiles.items():
            rows, columns = np.nonzero(line[tile])
            assert rows.size, name
            box = slice(rows.min() + 4, rows.max() - 3), slice(columns.min() + 4, columns.max() - 3)
            outside = np.ones_like(line[tile])
            outside[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7] = False
            # Cross and letters are few pixels.
            assert np.median(grey[tile][box]) > 200, name
            assert np.median(grey[tile][outside]) < 60, name
            middle = rows.mean() / line[tile].shape[0], columns.mean() / line[tile].shape[1]
            # The block is above (z), in front (y) and to the patient's left (x).
            expected = {"axial": (6 / 24, 22 / 32), "coronal": (2.5 / 8, 22 / 32), "sagittal": (2.5 / 8, 1 - 6 / 24)}
            assert middle == pytest.approx(expected[name], abs=0.06), name

    def test_picture_shows_something_and_changes_when_the_slice_moves(self, page):
        before, said = seen(page), label(page)
        assert before.std() > 10
        page.locator(".npc-lines").focus()
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        settle(page)
        assert label(page) != said
        assert np.abs(seen(page) - before).max() > 50

    def test_slider_of_a_plane_moves_it_and_the_outline_follows(self, page):
        slide(page, "plane='0'", 5)
        assert "axial slice 6 of 8" in label(page)
        inside = drawn(page, COLOURS["Reference"]).sum()
        slide(page, "plane='0'", 0)
        assert page.locator("[data-plane='0'] + output").inner_text() == "1 of 8"
        assert drawn(page, COLOURS["Reference"]).sum() < inside

    @pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
    def test_click_in_a_slice_moves_the_cross(self, page, touch):
        lines = page.locator(".npc-lines")
        box = lines.bounding_box()
        (lines.tap if touch else lines.click)(position={"x": box["width"] * 0.1, "y": box["height"] * 0.1})
        settle(page)
        x, y = (int(re.search(rf"{plane} slice (\d+) of", label(page))[1]) for plane in ("sagittal", "coronal"))
        # A tenth of the picture is a sixth of the axial tile, at the patient's right and front.
        assert x == pytest.approx(32 - 32 * 0.1 * 64 / 40, abs=1)
        assert y == pytest.approx(24 - 24 * 0.1 * 48 / 24, abs=1)

    def test_opacity_and_boxes_take_outlines_away(self, page):
        assert drawn(page, COLOURS["U-Net <2-D>"]).any()
        page.get_by_label("U-Net <2-D>").uncheck()
        settle(page)
        assert not drawn(page, COLOURS["U-Net <2-D>"]).any()
        assert drawn(page, COLOURS["Reference"]).any()
        page.get_by_label("U-Net <2-D>").check()
        slide(page, "opacity", 0)
        assert not drawn(page, COLOURS["Reference"]).any()
        slide(page, "opacity", 100)

    def test_another_series_is_another_picture(self, page):
        before = seen(page)
        page.get_by_label("Series").select_option("T2")
        settle(page)
        assert np.abs(seen(page) - before).max() > 50
        assert label(page).startswith("P0, T2")
        page.get_by_label("Series").select_option("T1")
        settle(page)

    def test_views_of_one_plane_and_3d_turn(self, page):
        page.get_by_role("button", name="3-D").click()
        settle(page)
        before = seen(page)
        assert before.std() > 3
        assert not drawn(page, COLOURS["Reference"]).any()
        page.locator(".npc-lines").focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        settle(page)
        assert np.abs(seen(page) - before).max() > 20
        page.get_by_role("button", name="Coronal").click()
        settle(page)
        assert drawn(page, COLOURS["Reference"]).any()
        assert page.get_by_role("button", name="Coronal").get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="All").click()
        settle(page)

    def test_row_of_the_table_chooses_the_patient(self, page):
        before = seen(page)
        page.locator(".npc-cases tbody tr").nth(1).locator("td").nth(1).click()
        settle(page)
        assert label(page).startswith("P1")
        assert page.get_by_role("button", name="P1").get_attribute("aria-pressed") == "true"
        assert page.get_by_role("button", name="P0").get_attribute("aria-pressed") == "false"
        assert np.abs(seen(page) - before).max() > 50

    def test_wheel_scrolls_the_page_until_the_picture_has_the_focus(self, page):
        said = label(page)
        page.evaluate("document.activeElement.blur()")
        page.locator(".npc-lines").hover()
        page.mouse.wheel(0, 30)
        settle(page)
        assert label(page) == said
        page.locator(".npc-lines").focus()
        page.mouse.wheel(0, 30)
        settle(page)
        assert label(page) != said

    def test_still_image_stays_without_webgl2_and_without_javascript(self, new_page, site):
        gone = """
          const get = HTMLCanvasElement.prototype.getContext;
          HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind === "webgl2" ? null : get.call(this, kind, ...rest);
          };
        """
        address = f"{site.address}/notebooks/volumes.html"
        one = go(new_page(), address, "still", gone)
        stills, note = one.page.locator(".npc-still img"), one.page.locator(".npc-note")
        assert stills.first.is_visible()
        assert not one.page.locator(".npc-live").is_visible()
        assert "no WebGL2" in note.inner_text()
        one.page.get_by_role("button", name="P1").click()
        assert stills.nth(1).is_visible()
        assert not any("niivue" in url for url in one.asked)
        assert one.wrong == []

        plain = go(new_page(java_script_enabled=False), address).page
        assert plain.locator(".npc-still img").first.is_visible()
        assert not plain.locator(".npc-live").is_visible()
