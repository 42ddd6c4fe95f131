"""Print the built book as one PDF: title page, contents with page numbers, all chapters.

    python -m tools.pdf [_build/html]

Needs what requirements-browser.txt names and a Chromium (on PATH, or CHROMIUM=/path/to/it).
The pages are joined into _build/pdf/book.html and printed by print.css; the result lies in
the site as rlhf-executed.pdf, where the pages link to it.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

from tools import notebooks

NAME = "rlhf-executed.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--no-first-run"]
FLAGS += [f"--disable-{x}" for x in ("gpu", "quic", "component-update", "sync")]
FLAGS += ["--disable-background-networking"]
MATHS = """() => window.MathJax && MathJax.startup
  ? MathJax.startup.promise.then(() => true) : true"""
IMAGES = """() => Promise.all([...document.images].map(i => i.complete || new Promise(
  done => { i.onload = i.onerror = done; }))).then(() => true)"""
NUMBER = """pages => document.querySelectorAll(".pdf-contents a").forEach(
  a => { a.dataset.page = pages[a.hash.slice(1)] || ""; })"""


def chromium_for(site: Path, who: str, *packages: str) -> tuple[str, str]:
    """(path of a Chromium, ""), or ("", one line that says what is missing)."""
    missing = [name for name in packages if find_spec(name) is None]
    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, BROWSERS)), ""
    )
    if not (site / "index.html").is_file():
        return "", f"{who}: no pages in {site}: make book first"
    if missing:
        install = ".venv/bin/pip install -r requirements-browser.txt"
        return "", f"{who}: no {' and no '.join(missing)}: {install}"
    return path, "" if path else f"{who}: no Chromium found (CHROMIUM=/path/to/it)"


def soup(page: Path) -> BeautifulSoup:
    """A page, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def contents(root: Path) -> list[tuple[str, list[str]]]:
    """[(caption, pages)] in the order of _toc.yml; the title page has no caption."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts = [(p["caption"], [c["file"] for c in p["chapters"]]) for p in toc["parts"]]
    return [("", [toc["root"]]), *parts]


def slug(page: str) -> str:
    """The name of a page inside the joined document."""
    return page.replace("/", "-")


def article(site: Path, page: str, pages: set[str], address: str) -> Tag:
    """A page's text, ready to stand beside the others: links, names and folds changed."""
    file = site / f"{page}.html"
    found = soup(file).find("article", class_="bd-article")
    if not isinstance(found, Tag):
        raise ValueError(f"{file}: got no article, wanted a built page of the book")
    for gone in found.select("script, noscript, .headerlink"):
        gone.decompose()
    for tag in found.find_all(id=True):
        drawn = tag.find_parent(["svg", "figure"]) or tag.find("svg", recursive=False)
        if not drawn and not (tag.name == "figure" and tag["id"].startswith("drag-")):
            tag["id"] = f"{slug(page)}--{tag['id']}"
    for link in found.find_all("a", href=True):
        link["href"] = _target(link["href"], file, site, page, pages, address)
    for image in found.find_all("img", src=True):
        if not urlsplit(image["src"]).scheme:
            image["src"] = (file.parent / unquote(image["src"])).resolve().as_uri()
    for fold in found.find_all("details"):
        code = fold.find_parent(class_="tag_hide-input")
        if code is None or "tag_solution" in code["class"]:
            fold["open"] = ""
            for shown in fold.select("summary .expanded"):
                shown.string = shown.get_text().replace("Hide the s", "S")
        else:
            fold.decompose()
    found["id"] = slug(page)
    return found


def _target(
    href: str, file: Path, site: Path, page: str, pages: set[str], address: str
) -> str:
    """Where a link leads: inside the document, or to the published book."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return href
    place = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    inside = place.relative_to(site.resolve()).as_posix()
    other = inside.removesuffix(".html")
    if other in pages:
        return f"#{slug(other)}" + (f"--{parts.fragment}" if parts.fragment else "")
    return urljoin(address, inside)


def heading(text: Tag) -> str:
    """The title of an article."""
    found = text.find("h1")
    return found.get_text().strip() if found else ""


def title_page(root: Path, address: str) -> str:
    """What CITATION.cff says, in the middle of a page."""
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    authors = ", ".join(author["name"] for author in cited["authors"])
    lines = [cited["abstract"], authors, str(cited["date-released"])]
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    link = f'<p><a href="{address}">{address}</a></p>'
    return (
        f'<div class="pdf-title"><div class="pdf-name">{escape(cited["title"])}</div>'
        f"{said}{link}</div>"
    )


def joined(site: Path, root: Path) -> str:
    """The whole book as one HTML document."""
    address, parts = notebooks.book_address(root), contents(root)
    style = (root / "book" / "_static" / "pdf.css").read_text(encoding="utf-8")
    pages = {page for _, listed in parts for page in listed}
    texts, lists, rules = [], [], []
    for caption, listed in parts:
        lists.append(f"<p>{escape(caption)}</p>" if caption else "")
        for page in listed:
            text = article(site, page, pages, address)
            title = escape(heading(text))
            lists.append(f'<a href="#{slug(page)}"><span>{title}</span><i></i></a>')
            texts.append(str(text))
            head = title.replace('"', "'")
            rules.append(
                f"#{slug(page)} {{ break-before: page; page: {slug(page)}; }}\n@page "
                f'{slug(page)} {{ @top-right {{ content: "{head}"; font: 10px sans-serif; '
                "color: #666; } }\n"
            )
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light"><head>{_head(site, parts)}'
        f"<style>{style}{''.join(rules)}</style></head><body>{title_page(root, address)}"
        f'<div class="pdf-contents"><div class="pdf-name">Contents</div>{"".join(lists)}'
        f'</div><main class="bd-main"><div class="bd-content"><div '
        f'class="bd-article-container">{"".join(texts)}</div></div></main></body></html>'
    )


def _head(site: Path, parts: list[tuple[str, list[str]]]) -> str:
    """The style sheets, the formulas' script and page.js, as the title page loads them."""
    front = site / f"{parts[0][1][0]}.html"
    page = soup(front)
    title = page.title.get_text().partition("—")[0].strip()  # without the book's, again
    head = [f'<meta charset="utf-8"><title>{title}</title>']
    for link in page.find_all("link", rel="stylesheet"):
        head.append(f'<link rel="stylesheet" href="{_uri(front, link["href"])}">')
    for script in page.find_all("script"):
        source = script.get("src", "")
        if "mathjax" in source or "page.js" in source:
            head.append(f'<script defer src="{_uri(front, source)}"></script>')
        elif "window.MathJax" in script.get_text():
            head.append(str(script))
    return "\n".join(head)


def _uri(page: Path, reference: str) -> str:
    return (page.parent / urlsplit(reference).path).resolve().as_uri()


def starts(pdf: Path, titles: dict[str, str]) -> dict[str, int]:
    """On which page each chapter starts, as the outline says: {slug: number}."""
    from pypdf import PdfReader

    reader = PdfReader(pdf)
    found = list(_entries(reader.outline))
    pages, at = {}, 0
    for name, title in titles.items():  # in order; a wrapped title loses its space
        for place in range(at, len(found)):
            if "".join(found[place].title.split()) == "".join(title.split()):
                pages[name] = reader.get_destination_page_number(found[place]) + 1
                at = place + 1
                break
    return pages


def _entries(outline: list[Any]) -> Iterator[Any]:
    for entry in outline:
        if isinstance(entry, list):
            yield from _entries(entry)
        else:
            yield entry


def printed(path: str, page: Path, to: Path) -> None:
    """Print a joined book twice: the first time tells the contents its page numbers."""
    from playwright.sync_api import sync_playwright

    asked = ("prefer_css_page_size", "outline", "tagged", "print_background")
    settings = {**dict.fromkeys(asked, True), "path": str(to)}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(600_000)
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate(MATHS)
        tab.evaluate(IMAGES)
        tab.wait_for_timeout(500)
        tab.pdf(**settings)
        titles = {a["id"]: heading(a) for a in soup(page).find_all("article")}
        pages = starts(to, titles)
        lost = sorted(set(titles) - set(pages))
        if lost:
            raise ValueError(f"{to}: its outline lacks {', '.join(lost)}")
        tab.evaluate(NUMBER, pages)
        tab.pdf(**settings)
        browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: printed; 2: it cannot print."""
    parser = argparse.ArgumentParser(prog="python -m tools.pdf")
    built = notebooks.ROOT / "_build" / "html"
    parser.add_argument("site", nargs="?", type=Path, default=built)
    site = parser.parse_args(arguments).site.resolve()
    path, problem = chromium_for(site, "make pdf", "playwright", "pypdf")
    if problem:
        print(problem, file=sys.stderr)
        return 2
    page = site.parent / "pdf" / "book.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(joined(site, notebooks.ROOT), encoding="utf-8")
    printed(path, page, site / NAME)
    print(f"The book as one PDF: {site / NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
