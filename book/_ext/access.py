"""What the theme's HTML leaves out for keyboards and screen readers, put right."""

import re

from sphinx.application import Sphinx

# what docutils, myst-nb and the theme write -> what it should be
BODY = (
    (' aria-label="Toggle hidden content"', ""),  # of every fold, whatever it holds
    (' role="doc-biblioentry"', ' role="listitem"'),  # the children of a list
    ('<th class="head"><p></p></th>', '<td class="head"></td>'),  # heads nothing
)
FRAME = (
    (r'(<button class="[^"]*search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch[^>]*?) +title="[^"]*"', r'\1 aria-hidden="true"'),
    (r'<div id="pst-primary-sidebar"', r'\g<0> role="complementary" aria-label="Book"'),
)


def mend_body(body: str) -> str:
    """A page's text with the roles and names that it should have."""
    for old, new in BODY:
        body = body.replace(old, new)
    return body


def mend_frame(html: str) -> str:
    """The same for what stands around the text."""
    for old, new in FRAME:
        html = re.sub(old, new, html)
    return html


def _context(app: Sphinx, page: str, template: str, context: dict, *_: object) -> None:
    context["mend_frame"] = mend_frame
    if "body" in context:
        context["body"] = mend_body(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_js_file("page.js", loading_method="defer")
    app.connect("html-page-context", _context)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
