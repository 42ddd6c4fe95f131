"""The page: icons, folds, tags, addresses, and how the pages join into one document."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from types import ModuleType

import pytest
from docutils import nodes

from tests.house.pages import dead_links, lost_file, nameless_images
from tools import notebooks, pdf

EXT = notebooks.ROOT / "book" / "_ext"
STATIC = notebooks.ROOT / "book" / "_static"


def extension(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


access, folds, icons, head = map(extension, ("access", "folds", "icons", "pagehead"))


# ------------------------------------------------------------------ icons


def test_the_themes_icon_script_leaves_the_page_and_the_others_stay():
    theirs = '<script src="_static/scripts/fontawesome.js?digest=1"></script>\n'
    assert icons.without_script(f'{theirs}<script src="a.js">') == '<script src="a.js">'


def test_every_icon_of_a_page_is_drawn_from_the_themes_own_shapes():
    page = '<i class="fas fa-rocket"></i><span class="fa-solid fa-list"></span>'
    names = icons.used(f'{page}<i class="fab fa-github"></i>')
    assert names == {"rocket", "list", "github"}
    text = icons.css(names, icons.theme_script().read_text(encoding="utf-8"))
    assert all(f".fa-{name} {{ --icon: url(" in text for name in names)
    assert len(text) < 6_000


def test_an_icon_that_the_theme_lacks_is_named():
    with pytest.raises(ValueError, match="icon unicorn-x"):
        icons.css({"unicorn-x"}, '{"sun":[512,512,[1],"f1","M0 0"]}')


# ------------------------------------------------------------------ folds


def cell(source="x = 1", outputs=(), tags=("hide-input",), **metadata):
    kinds = [{"data": {kind: ""}} if kind else {} for kind in outputs]
    return {
        "cell_type": "code",
        "source": source,
        "outputs": kinds,
        "metadata": {"tags": list(tags), **metadata},
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (cell(outputs=["image/svg+xml"]), "Show the code of this figure"),
        (cell(outputs=["text/html"]), "Show the code of this interactive figure"),
        (cell(outputs=["text/markdown"]), "Show the code of this table"),
        (cell(outputs=[""]), "Show the code that prints this"),
        (cell("def a():\n  1\ndef b():\n  2"), "Show the code of a() and b()"),
        (cell(), "Show the preparations"),
        (cell(nbgrader={"solution": True}), "Show the solution of exercise 7.2"),
        (cell(mystnb={"code_prompt_show": "Show the proof"}), "Show the proof"),
    ],
)
def test_a_fold_says_what_it_holds(given, shown):
    task = {"cell_type": "markdown", "source": "## Exercise 7.2 · Sums", "metadata": {}}
    notebook = {"cells": [task, given]}
    folds.name_folds(notebook)
    said = given["metadata"]["mystnb"]
    assert said["code_prompt_show"] == shown
    if shown != "Show the proof":
        assert said["code_prompt_hide"] == shown.replace("Show", "Hide")


def test_a_written_solution_says_which_exercise_it_solves():
    text = "### Exercise V.1: words\n\n<details><summary>Solution</summary>"
    notebook = {"cells": [{"cell_type": "markdown", "source": text, "metadata": {}}]}
    folds.name_folds(notebook)
    assert "<summary>Solution of exercise V.1<" in notebook["cells"][0]["source"]


def test_folds_and_lists_lose_the_wrong_names_and_roles():
    body = '<summary aria-label="Toggle hidden content"><div role="doc-biblioentry">'
    assert access.mend_body(body) == '<summary><div role="listitem">'
    frame = (
        '<button class="btn search-button-field x" title="Search" aria-label="Search">'
    )
    assert "aria-label" not in access.mend_frame(frame)


# ------------------------------------------------------------------ tags


def document(*paragraphs):
    doctree, section = nodes.document(None, None), nodes.section()
    doctree += section
    for parts in paragraphs:
        section += nodes.paragraph("", "", *parts)
    return doctree


def test_a_description_is_the_first_paragraph_in_words():
    link = [nodes.Text("Open in Colab")]
    maths = [nodes.Text("w " * 40), nodes.math("", r"\sum_t r_t")]
    plain = [nodes.Text("minus "), nodes.math("", r"\beta"), nodes.Text(" times" * 20)]
    said = head.description(document(link, maths, plain))
    assert said.startswith("minus β times times")
    assert head.description(document(link, maths)) == ""


def test_a_long_description_ends_with_a_sentence_or_a_word():
    assert head.cut("a" * 80 + ". " + "b" * 200) == "a" * 80 + "."
    assert head.cut("word " * 80).endswith("word…")
    assert len(head.cut("word " * 80)) <= head.LONGEST


def test_tags_are_escaped_and_empty_ones_left_out():
    said = head.tags([("og:title", 'a "b" <c>'), ("description", "")])
    assert 'property="og:title" content="a &quot;b&quot; &lt;c&gt;"' in said
    assert "description" not in said


def test_the_sitemap_names_every_page_under_the_books_address():
    text = head.sitemap("https://a.github.io/b/", ["book/intro.html", "x.html"])
    found = [e.text for e in ET.fromstring(text).iter() if e.tag.endswith("loc")]
    assert found == [
        "https://a.github.io/b/book/intro.html",
        "https://a.github.io/b/x.html",
    ]


# ------------------------------------------------------------------ one document


@pytest.fixture
def site(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "a.html").write_text(
        '<article class="bd-article"><section id="s"><h1>A</h1>'
        '<a href="notebooks/b.html#s">b</a>'
        '<a href="#s">here</a><a href="other.zip">z</a><a href="https://x.org">x</a>'
        '<img src="i.svg"><script>1</script></section></article>'
    )
    (tmp_path / "notebooks" / "b.html").write_text(
        '<article class="bd-article"><section id="s"><h1>B</h1>'
        '<div class="cell tag_hide-input"><details class="hide">plot</details></div>'
        '<div class="cell tag_hide-input tag_solution"><details class="hide"><summary>'
        '<p class="expanded">Hide the solution</p></summary>solved</details></div>'
        '<div><figure id="drag-1"><svg></svg></figure></div></section></article>'
    )
    return tmp_path


def test_links_lead_inside_the_joined_document(site):
    text = pdf.article(site, "a", {"a", "notebooks/b"}, "https://book/")
    links = [link["href"] for link in text.find_all("a")]
    assert links == [
        "#notebooks-b--s",
        "#a--s",
        "https://book/other.zip",
        "https://x.org",
    ]
    assert text.section["id"] == "a--s" and text["id"] == "a"
    assert text.img["src"] == (site / "i.svg").resolve().as_uri()
    assert text.script is None


def test_solutions_are_printed_open_and_plotting_code_is_not_printed(site):
    text = pdf.article(site, "notebooks/b", {"a", "notebooks/b"}, "https://book/")
    said = text.get_text()
    assert "solved" in said and "plot" not in said and "Hide" not in said
    assert text.details.has_attr("open") and text.find(id="drag-1") is not None


def test_the_pdf_holds_every_page_of_the_contents_once():
    listed = [page for _, pages in pdf.contents(notebooks.ROOT) for page in pages]
    assert listed[0] == "book/intro" and "notebooks/01_thermostat" in listed
    assert len({pdf.slug(page) for page in listed}) == len(listed)


def test_the_pages_link_to_the_pdf_that_is_printed():
    assert head.PDF == pdf.NAME


# ------------------------------------------------------------------ tools and styles


def test_who_has_no_site_or_no_browser_is_told_in_one_line(tmp_path, monkeypatch):
    assert "make book first" in pdf.chromium_for(tmp_path, "make pdf")[1]
    (tmp_path / "index.html").touch()
    missing = pdf.chromium_for(tmp_path, "make pdf", "no_such_package")[1]
    assert "requirements-browser.txt" in missing and "\n" not in missing
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no Chromium found" in pdf.chromium_for(tmp_path, "make pdf")[1]


def test_the_lost_page_finds_its_files_from_the_roots_address(tmp_path):
    page = tmp_path / "404.html"
    page.write_text('<head><base href="/name/"></head>')
    (tmp_path / "a.css").touch()
    assert lost_file(page, "file:///name/a.css?v=1") == tmp_path / "a.css"
    assert lost_file(page, "file:///name/gone.css") is None
    assert lost_file(page, "file:///elsewhere/a.css") is None


def test_dead_links_and_nameless_images_are_found(tmp_path):
    other = tmp_path / "other.html"
    other.write_text('<article><p id="there"></p></article>')
    page = tmp_path / "page.html"
    page.write_text(
        '<article><a href="other.html#there"></a> <a href="https://elsewhere"></a>'
        '<a href="other.html#gone"></a> <a href="gone.html"></a> <a href="#nowhere"></a>'
        '<img alt="a curve that rises"><img alt="../_images/0f3a.svg"><img>'
        '<svg aria-label="a pole"></svg><svg></svg></article>'
    )
    dead = " ".join(dead_links(page))
    assert len(list(dead_links(page))) == 3
    assert all(name in dead for name in ("other.html#gone", "gone.html", "#nowhere"))
    assert len(list(nameless_images(page))) == 3


def test_the_browsers_packages_are_pinned():
    text = (notebooks.ROOT / "requirements-browser.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)


def test_printed_code_wraps_and_the_script_reckons_with_the_printed_size():
    style = (STATIC / "print.css").read_text(encoding="utf-8")
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    assert "white-space: pre-wrap" in style
    assert (
        re.search(r"html \{\s*font-size: (\d+)px", style)[1]
        == re.search(r"PRINTED = (\d+);", script)[1]
    )
