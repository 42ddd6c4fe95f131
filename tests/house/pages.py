"""What is wrong with a built page, as its file alone tells: no browser is needed."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag


@cache
def soup(page: Path) -> BeautifulSoup:
    """A page, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The places in a page that a link can lead to."""
    found = soup(page).find_all(lambda tag: tag.has_attr("id") or tag.has_attr("name"))
    return frozenset(str(tag.get("id") or tag.get("name")) for tag in found)


def dead_links(page: Path) -> Iterator[str]:
    """Links inside the book that lead nowhere."""
    for link in soup(page).find_all("a", href=True):
        address = urlsplit(link["href"])
        if address.scheme or address.netloc:
            continue
        inside = unquote(address.path)
        target = (page.parent / inside).resolve() if inside else page
        if not target.exists():
            yield f"link to {link['href']}, which is not there"
        elif address.fragment and target.suffix == ".html":
            if unquote(address.fragment) not in anchors(target):
                yield f"link to {link['href']}: no such place in the page"


def nameless_images(page: Path) -> Iterator[str]:
    """Pictures that a screen reader cannot say."""
    article = soup(page).find("article") or soup(page)
    for image in article.find_all(["img", "svg", "canvas"]):
        said = image.get("alt") or image.get("aria-label") or ""
        unread = image.get("aria-hidden") == "true"
        if unread or image.get("role") == "presentation" or _labelled_above(image):
            continue
        if not said.strip() or re.search(r"\.(svg|png)$|^[0-9a-f]{20,}", said):
            yield f"<{image.name}> with alt text {said[:60]!r}"


def _labelled_above(tag: Tag) -> bool:
    kinds = ("svg", "figure", "div", "button", "a")
    above = (parent for parent in tag.parents if parent.name in kinds)
    return any(each.get("aria-label") or each.get("aria-labelledby") for each in above)


def lost_file(page: Path, url: str) -> Path | None:
    """A file that 404.html, opened from disk, asks for by its published address."""
    base = soup(page).find("base", href=True)
    start = f"file://{base['href']}" if base else None
    if start is None or not url.startswith(start):
        return None
    file = page.parent / unquote(urlsplit(url).path).removeprefix(base["href"])
    return file if file.is_file() else None
