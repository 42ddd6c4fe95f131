"""The pages without code say what the code says: numbers, pictures, names, paths."""

import importlib
import re
from unicodedata import normalize

import pytest

from book import title_page
from lib.worlds import mdp
from lib.worlds import thermostat as room
from tools import notebooks

ROOT = title_page.STATIC.parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["pipeline.svg", "pipeline-narrow.svg", "lag.svg"])
def test_the_committed_picture_is_the_one_that_the_code_draws(name):
    committed = (title_page.STATIC / name).read_text(encoding="utf-8")
    assert committed == title_page.files()[name], "run: python -m book.title_page"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        ("rule, lag 0", "answers at once the rule earns **{}**"),
        ("best, lag 0", "finds **{}** too"),
        ("rule, lag 3", "The same rule earns **{}**"),
        ("best, lag 3", "the best that can be done is **{}**"),
        ("rule in band", "for {} of the time"),
        ("best in band", "the best policy for more than {}."),
    ],
)
def test_the_title_page_quotes_the_number_that_the_code_computes(number, sentence):
    text = " ".join(read("book/intro.md").split())
    assert sentence.format(title_page.numbers()[number]) in text


def test_no_other_switching_temperature_beats_70_degrees_when_the_heater_lags():
    world = room.thermostat(lag=title_page.LAG)
    degrees = room.temperatures(lag=title_page.LAG)
    earned = {
        below: (
            world.start @ mdp.policy_values(world, room.rule(degrees, below=below))
        ).item()
        for below in range(60, 82)
    }
    assert max(earned, key=earned.get) == 70
    assert sorted(earned.values())[-2] < earned[70] - 0.05


def test_both_policies_of_the_figure_meet_the_same_draughts():
    rule, best = title_page.traces()
    falls = [[b - a for a, b in zip(t[:-1], t[1:], strict=True)] for t in (rule, best)]
    assert len(rule) == len(best) == title_page.STEPS
    draughts = [[step in (0, -2) for step in fall] for fall in falls]
    assert draughts[0] == draughts[1] and any(draughts[0])


def test_every_function_that_the_notation_names_is_there():
    names = re.findall(r"`(lib(?:\.\w+)+)`", read("book/notation.md"))
    assert len(names) > 10
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, function = name.rpartition(".")
            assert hasattr(importlib.import_module(module), function), name


def glossary():
    text = read("book/glossary.md").partition("```{glossary}\n")[2]
    return re.findall(r"^(\S.*)\n  \S", text, re.MULTILINE)


def test_the_glossary_names_what_readers_search_for_and_each_word_once():
    words = glossary()
    assert {"Goodhart's law", "reward hacking", "action value"} <= set(words)
    assert len(words) == len(set(words)) > 80


def test_every_term_that_a_page_links_is_in_the_glossary():
    pages = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    linked = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", "\n".join(texts))
    assert len(linked) > 10
    assert set(linked) <= set(glossary())


def test_every_glossary_link_of_a_notebook_leads_to_a_term():
    plain = [normalize("NFKD", word).encode("ascii", "ignore") for word in glossary()]
    anchors = {re.sub(r"[^A-Za-z0-9._]+", "-", w.decode()).strip("-") for w in plain}
    linked = [
        anchor
        for path in (ROOT / "notebooks").rglob("*.ipynb")
        for anchor in re.findall(
            r"glossary\.md#term-([\w.-]+)", path.read_text("utf-8")
        )
    ]
    assert len(linked) > 20
    assert set(linked) <= anchors


def test_every_equation_that_a_notebook_refers_to_has_its_label_there():
    found = 0
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        text = path.read_text("utf-8")
        named = re.findall(r"\]\(#(eq[\w-]+)\)", text)
        labels = re.findall(r"\$\$ \((eq[\w-]+)\)", text)
        assert set(named) <= set(labels), path
        assert len(labels) == len(set(labels)), path
        found += len(named)
    assert found > 5


def test_no_page_refers_to_an_equation_of_another():
    """Sphinx finds an equation's label only on the page where it stands."""
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        assert ".ipynb#eq" not in path.read_text("utf-8"), path


def test_the_notation_lists_the_symbols_that_mean_several_things():
    page = read("book/notation.md")
    rows = page.partition("### Symbols that mean several things")[2]
    rows = rows.partition("Which")[0]
    for symbol in ("A", "G", "T", "m", r"\tau", r"\theta", r"\rho", r"\sigma"):
        assert re.search(rf"^\| \$[^|]*{re.escape(symbol)}", rows, re.MULTILINE), symbol


def test_the_simplified_objective_is_displayed_where_it_is_argued_with():
    page = notebooks.read(ROOT / "notebooks/03_from_rl_to_rlhf.ipynb")
    text = "\n".join(cell.source for cell in page.cells)
    for page in (text, read("book/notation.md")):
        plain = re.sub(r"\\[,;]|\\left|\\right|\\big|\s", "", page)
        assert r"y\sim\pi(\cdot\midx)}[r_\theta(x,y)]" in plain


def test_every_file_that_contributing_and_readme_link_to_exists():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", read(page)):
            assert (ROOT / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/howto.md"])
def test_no_figure_is_left_to_be_filled_in(page):
    assert "TODO" not in read(page)
