"""What search engines, link previews and reference managers read: not on the page itself.

Each page gets a description, OpenGraph and citation tags; the site gets sitemap.xml and
404.html. All addresses come from `html_baseurl`, all names from CITATION.cff.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from unicodedata import lookup
from urllib.parse import urljoin, urlsplit

import yaml
from docutils import nodes
from sphinx.application import Sphinx

PDF = "rlhf-executed.pdf"
LONGEST = 200  # characters of a description
SHORTEST = 60  # what is shorter is a link or a label
LOST = """<section><h1>There is no such page</h1>
<p>The address may be old, or mistyped. The chapters are in the list beside this text (on a
phone: behind the button at the top), and there is a <a href="search.html">search</a>.</p>
<p><a href="{start}">To the title page</a></p></section>"""


def description(doctree: nodes.document) -> str:
    """The first paragraph that says something in words, cut at a sentence or a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = in_words(paragraph)
        if isinstance(paragraph.parent, nodes.section) and len(text) >= SHORTEST:
            return cut(text)
    return ""


def in_words(paragraph: nodes.paragraph) -> str:
    """A paragraph's text without markup; nothing if it holds more than a letter of TeX."""
    text = paragraph.astext()
    for symbol in paragraph.findall(nodes.math):
        tex = symbol.astext()
        if not re.fullmatch(r"\\?[A-Za-z]+", tex) or (tex[0] != "\\" and len(tex) > 1):
            return ""
        try:
            letter = lookup(f"GREEK SMALL LETTER {tex[1:].upper()}") if tex[1:] else tex
        except KeyError:
            return ""
        text = text.replace(tex, letter) if tex[1:] else text
    return " ".join(text.split())


def cut(text: str) -> str:
    """At most LONGEST characters: whole sentences, or else whole words and an ellipsis."""
    if len(text) <= LONGEST:
        return text
    sentences = re.match(rf"(.{{{SHORTEST},{LONGEST - 1}}}[.!?])(?=\s)", text)
    return sentences[1] if sentences else text[: LONGEST - 1].rsplit(" ", 1)[0] + "…"


def tags(pairs: list[tuple[str, str]]) -> str:
    """Meta tags; OpenGraph's are called property, all others name."""
    lines = [
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" '
        f'content="{escape(content)}" />'
        for name, content in pairs
        if content
    ]
    return "\n    ".join(["", *lines])


def described(app: Sphinx, page: str, doctree: nodes.document) -> list[tuple[str, str]]:
    """What the tags of a page say."""
    book, base = app.config.html_title, app.config.html_baseurl
    title, text = app.env.titles[page].astext(), description(doctree)
    is_front = page == app.config.root_doc
    cited = yaml.safe_load(Path(app.srcdir, "CITATION.cff").read_text(encoding="utf-8"))
    address = urljoin(base, f"{page}.html")
    return [
        ("description", text),
        ("og:type", "book" if is_front else "article"),
        ("og:site_name", book),
        ("og:title", title),
        ("og:description", text),
        ("og:url", address),
        ("og:image", urljoin(base, "_static/screenshot.png")),
        ("og:image:alt", f"A page of {book}"),
        ("twitter:card", "summary_large_image"),
        ("citation_title", title),
        ("citation_inbook_title", "" if is_front else book),
        *[("citation_author", author["name"]) for author in cited["authors"]],
        ("citation_publication_date", str(cited["date-released"]).replace("-", "/")),
        ("citation_language", "en"),
        ("citation_public_url", address),
        ("citation_pdf_url", urljoin(base, PDF) if is_front else ""),
    ]


def sitemap(base: str, pages: list[str]) -> str:
    """The pages of the book, for search engines."""
    urls = "\n".join(f"  <url><loc>{escape(urljoin(base, p))}</loc></url>" for p in pages)
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    start = '<?xml version="1.0" encoding="utf-8"?>'
    return f'{start}\n<urlset xmlns="{space}">\n{urls}\n</urlset>\n'


def _head(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    if page == "404":  # served for any address, so its links start at the site's root
        context["base_path"] = urlsplit(app.config.html_baseurl).path or "/"
        context["pageurl"] = None
    if doctree is None:
        context["metatags"] = context.get("metatags", "") + tags([("robots", "noindex")])
        return
    context["metatags"] += tags(described(app, page, doctree))


def _whole_book(
    app: Sphinx, page: str, template: str, context: dict, *_: object
) -> None:
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            group["buttons"].append(
                {
                    "type": "link",
                    "url": urljoin(app.config.html_baseurl, PDF),
                    "text": "Whole book, .pdf",
                    "tooltip": "The whole book as one PDF",
                    "icon": "fas fa-file-pdf",
                    "label": "download-book-button",
                }
            )


def _later(app: Sphinx, page: str, template: str, context: dict, *_: object) -> None:
    """Scripts wait for the text; those of the search page need one another at once."""
    for script in context["script_files"]:
        name = str(getattr(script, "filename", None) or "")
        now = "documentation_options" in name or "async" in script.attributes
        if name.endswith(".js") and not now:
            if page == "search":
                script.attributes.pop("defer", None)
            else:
                script.attributes["defer"] = "defer"


def _lost(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    start = f"{app.config.root_doc}.html"
    yield "404", {"title": "No such page", "body": LOST.format(start=start)}, "page.html"


def _sitemap(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html" or not app.config.html_baseurl:
        return
    pages = sorted(f"{name}.html" for name in app.env.found_docs)
    text = sitemap(app.config.html_baseurl, pages)
    Path(app.outdir, "sitemap.xml").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", _head)
    app.connect("html-page-context", _whole_book, priority=901)  # after the theme's own
    app.connect("html-page-context", _later, priority=902)
    app.connect("html-collect-pages", _lost)
    app.connect("build-finished", _sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
