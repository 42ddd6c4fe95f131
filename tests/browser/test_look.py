"""Every built page as a browser shows it; `make look` runs this, `make test` does not.

Needs what requirements-browser.txt names and a Chromium (on PATH, or CHROMIUM=/path/to/it).
Each page is opened from disk at 1280 and 390 pixels, light and dark. Complaints: console
errors, requests to elsewhere, anything wider than the window, formulas that failed,
sliders that move nothing, display formulas that are cut at 1280 pixels, and what axe-core
(AXE=/path/to/axe.min.js, or the one that was installed) calls serious or critical; and of
the file, links and anchors that lead nowhere, images without alt text. Screenshots go to
_build/look.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.house.pages import dead_links, lost_file, nameless_images
from tools import notebooks, pdf

SITE = notebooks.ROOT / "_build" / "html"
SHOTS = SITE.parent / "look"
PAGES = [p for p in sorted(SITE.rglob("*.html")) if "_static" not in p.parts]
SPHINX_S = {"search.html", "genindex.html", "index.html"}  # it wrote what they show
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
HERE = ("file:", "data:", "blob:", "about:")

WIDER = """() => {
  const room = document.documentElement.clientWidth + 1;
  if (document.documentElement.scrollWidth <= room) return [];
  const scrolls = e => e && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)
    || scrolls(e.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > room && !scrolls(e.parentElement))
    .slice(0, 4).map(e => e.tagName.toLowerCase() + "." + e.getAttribute("class"));
}"""
UNMOVED = """() => [...document.querySelectorAll("input[type=range]")].filter(slider => {
  const figure = slider.closest("figure, .cell_output, div");
  const before = figure.innerHTML;
  slider.value = slider.value === slider.max ? slider.min : slider.max;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  return figure.innerHTML === before;
}).length"""
CUT = """() => [...document.querySelectorAll('mjx-container[display="true"]')]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent.slice(0, 40))"""
AXE = """() => axe.run(document, {preload: false, resultTypes: ["violations"]}).then(found =>
  found.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v =>
    `axe, ${v.impact}: ${v.id}, ${v.nodes.length} times, as ${v.nodes[0].target}`))"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The axe-core of this machine: AXE=/path/to/it, or the installed one."""
    spec = find_spec("axe_playwright_python")
    installed = Path(spec.origin).parent / "axe.min.js" if spec else "nowhere"
    file = Path(os.environ.get("AXE", installed))
    if not file.is_file():
        pytest.exit(f"make look: no axe-core at {file} (AXE=/path/to/axe.min.js)", 2)
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium that is open as long as the tests run."""
    path, problem = pdf.chromium_for(SITE, "make look", "playwright")
    if problem:
        pytest.exit(problem, 2)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=pdf.FLAGS)
        yield opened
        opened.close()


def looked_at(tab: Any, page: Path, width: int, shot: str, axe: str) -> Iterator[str]:
    """Open one page in a tab; what is wrong with it."""
    tab.goto(page.as_uri(), wait_until="load")
    tab.evaluate(pdf.MATHS)
    if width == 1280:
        yield from (f"a formula is cut: {what}" for what in tab.evaluate(CUT))
    yield from (f"wider than the window: {what}" for what in tab.evaluate(WIDER))
    if failed := tab.locator("mjx-merror").count():
        yield f"{failed} formulas failed"
    tab.screenshot(path=str(SHOTS / f"{shot}.png"), full_page=True)
    tab.wait_for_timeout(200)  # the picture resized the page: formulas are fitted again
    tab.evaluate(axe)
    yield from tab.evaluate(AXE)
    if still := tab.evaluate(UNMOVED):
        yield f"{still} sliders move nothing"


def heard(tab: Any, page: Path) -> list[str]:
    """A list that fills with what a tab says on its console and asks of others."""
    said: list[str] = []
    tab.on("console", lambda m: m.type == "error" and said.append(f"console: {m.text}"))
    tab.on("pageerror", lambda error: said.append(f"console: {error}"))

    def ask(route: Any) -> None:
        lost = lost_file(page, route.request.url)  # 404.html names files from the root
        if lost:
            route.fulfill(path=str(lost))
        elif route.request.url.startswith(HERE):
            route.continue_()
        else:
            said.append(f"asks {route.request.url}")
            route.abort()

    tab.route("**/*", ask)
    return said


def test_the_book_is_built_and_has_its_chapters(browser, axe):
    names = {page.stem for page in PAGES}
    assert {path.stem for path in notebooks.chapters()} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(SITE).as_posix())
def test_a_page_looks_right_wide_and_narrow_light_and_dark(page, browser, axe):
    said = [*dead_links(page), *nameless_images(page)]
    for width, scheme in VIEWS if page.name not in SPHINX_S else ():
        view = {"width": width, "height": 900}
        context = browser.new_context(viewport=view, color_scheme=scheme)
        tab = context.new_page()
        noise = heard(tab, page)
        shot = f"{page.parent.name}-{page.stem}-{width}-{scheme}"
        seen = [*looked_at(tab, page, width, shot, axe), *noise]
        said += [f"{width} px, {scheme}: {what}" for what in seen]
        context.close()
    assert not said, "\n".join(["", *dict.fromkeys(said)])
