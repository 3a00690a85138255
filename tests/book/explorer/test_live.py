"""The live explorer in JupyterLab: a person opens the notebook, runs all cells, and moves the threshold."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from npcrepro.base.files import write_json

PATIENCE_S = 300  # on a busy machine
SETTINGS = {
    # A test asks nobody for news, and has all cells on the page at once.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
PARAMETERS = {"profile": "smoke", "methods": ["mmfnet-no-transfer", "multi-encoder"], "device": "cpu", "runs": "runs"}


@pytest.fixture
def folder(tmp_path, repository) -> Path:
    """A folder with a copy of the notebook, with the parameters of a small run."""
    notebook = nbformat.read(repository / "notebooks" / "explore.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in PARAMETERS.items())
    (tmp_path / "work").mkdir()
    nbformat.write(notebook, tmp_path / "work" / "explore.ipynb")
    return tmp_path / "work"


@pytest.fixture
def jupyterlab(folder, tmp_path):
    """Address of JupyterLab on this machine, with what its address needs after the path."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab; pip install -e .[test]")
    home, token = tmp_path / "home", secrets.token_hex(16)
    for name, values in SETTINGS.items():
        write_json(home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings", values)
    environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        environment[name] = str(home / name.lower())
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(home / "workspaces")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    with open(tmp_path / "jupyterlab.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", process, tmp_path / "jupyterlab.log")
        yield f"http://127.0.0.1:{port}", token
    finally:
        process.terminate()  # which ends its kernels, too
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)


def _dsc(text: str) -> list[str]:
    """DSC of each method in the text of the table of numbers."""
    rows = [row.split("\t") for row in text.splitlines() if "\t" in row]
    return [row[1] for row in rows[1:-1]]


@pytest.mark.browser
@pytest.mark.slow
def test_the_threshold_moves_and_the_numbers_follow(jupyterlab, chromium_path, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    site, token = jupyterlab
    foreign = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE_S)
        expect.set_options(timeout=1000 * PATIENCE_S)
        page.on("request", lambda request: foreign.append(request.url) if not _own(request.url, site) else None)
        page.goto(f"{site}/doc/tree/explore.ipynb?token={token}")
        # Asked earlier, JupyterLab wants to know which kernel.
        page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()

        threshold = page.locator(".widget-hslider", has_text="Threshold")
        handle, readout = threshold.locator(".noUi-handle"), threshold.locator(".widget-readout")
        table = page.locator(".widget-html table")
        expect(readout).to_have_text("0.50")
        start = table.inner_text()

        handle.focus()
        page.keyboard.press("ArrowRight")
        expect(readout).to_have_text("0.51")
        page.keyboard.press("Home")  # everything is marked that the network has looked at
        expect(table).to_contain_text("threshold 0.01")
        low = table.inner_text()
        page.keyboard.press("End")  # nothing is
        expect(table).to_contain_text("threshold 0.99")
        high = table.inner_text()

        page.get_by_role("button", name="errors").click()
        page.get_by_role("button", name="coronal").click()
        expect(page.locator(".widget-html", has=page.locator("table"))).to_contain_text("missed (FN)")
        expect(page.get_by_role("img", name=re.compile("coronal slice .*errors of"))).to_be_visible()
        browser.close()
    assert len(_dsc(start)) == 2
    assert all(float(dsc) > 0 for dsc in _dsc(low))
    assert _dsc(high) == ["0.000"] * 2
    assert foreign == []


def _own(address: str, site: str) -> bool:
    return address.startswith((site, site.replace("http", "ws"), "data:", "blob:"))
