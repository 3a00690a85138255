"""One browser for the widgets of a page."""

import pytest

PATIENCE_MS = 300_000  # graphics are computed by the processor here, which may have other work
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def chromium(chromium_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def new_page(chromium):
    """Opens a page with these options in a context of its own; contexts are closed with the browser."""

    def new(**options):
        context = chromium.new_context(viewport={"width": 700, "height": 800}, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.set_default_navigation_timeout(PATIENCE_MS)
        return context.new_page()

    return new
