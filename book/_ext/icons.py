"""Icons without the theme's script: 0.5 MB for a dozen shapes, loaded before the text.

The shapes that the pages use are cut out of that script into `_static/icons.css` when the
book is built; each is a mask in the colour of the text.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pydata_sphinx_theme
from sphinx.application import Sphinx
from sphinx.util import logging

SCRIPT = re.compile(r"<script[^>]*fontawesome\.js[^>]*></script>\s*")
USED = re.compile(r'class="[^"]*\bfa[bs]?(?:-solid|-brands)? +fa-([a-z-]+)')
# "name":[width,height,[…],"code","path"]; the last of a name is the solid one
SHAPE = r'[{,]"?%s"?:\[(\d+),(\d+),\[[^\]]*\],"\w+","([^"]+)"'
BASE = """\
:is(.fa, .fab, .fas, .fa-brands, .fa-solid) {
  display: inline-block; font-family: sans-serif; line-height: 1; vertical-align: -0.125em;
}
:is(.fa, .fab, .fas, .fa-brands, .fa-solid)::before {
  background: currentcolor; content: ""; display: block; height: 1em; width: 1.1em;
  mask: var(--icon) center / contain no-repeat;
  -webkit-mask: var(--icon) center / contain no-repeat;
}
@media (forced-colors: active) {
  :is(.fa, .fab, .fas, .fa-brands, .fa-solid)::before { background: ButtonText; }
}
"""


def theme_script() -> Path:
    """The script of the theme that holds the shapes of all icons."""
    inside = Path("theme", "pydata_sphinx_theme", "static", "scripts", "fontawesome.js")
    return Path(pydata_sphinx_theme.__file__).parent / inside


def without_script(head: str) -> str:
    """A page's head without the tag that loads the theme's script."""
    return SCRIPT.sub("", head)


def used(page: str) -> set[str]:
    """Names of the icons in a page."""
    return set(USED.findall(page))


def css(names: Iterable[str], script: str) -> str:
    """A style sheet that draws these icons; a name that the script lacks is an error."""
    rules = [BASE]
    for name in sorted(names):
        shapes = re.findall(SHAPE % re.escape(name), script)
        if not shapes:
            raise ValueError(f"icon {name}: not among the theme's")
        width, height, path = shapes[-1]
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
            f'<path d="{path}"/></svg>'
        )
        rules.append(f'.fa-{name} {{ --icon: url("data:image/svg+xml,{quote(svg)}"); }}\n')
    return "".join(rules)


def _write(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = (p for p in out.rglob("*.html") if "_static" not in p.parts)
    names = set().union(*(used(p.read_text(encoding="utf-8")) for p in pages))
    script = theme_script().read_text(encoding="utf-8")
    try:
        text = css(names, script)
    except ValueError as problem:
        logging.getLogger(__name__).warning(str(problem))
        return
    (out / "_static" / "icons.css").write_text(text, encoding="utf-8")


def _hand_over(app: Sphinx, page: str, template: str, context: dict, *_: object) -> None:
    context["without_icon_script"] = without_script


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_css_file("icons.css", priority=900)
    app.connect("html-page-context", _hand_over)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
