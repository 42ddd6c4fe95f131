"""Every measured number in prose stands in an output, a record or the published file."""

import copy
import random
import re
import tomllib
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.house import shown
from tests.house.numbers import numbers
from tests.house.prose import claims, plain
from tests.house.shown import Evidence, evidence, leaves, unshown
from tools import notebooks

ROOT = notebooks.ROOT
SOURCES = [path for path in notebooks.everything() if path.parent.name != "exercises"]
CHAPTERS = [path for path in SOURCES if path.parent.name == "notebooks"]
MOST = 40  # excuses in a notebook: a list that grows is a rule that fails


def name(path: Path) -> str:
    """The name of a notebook in literals.toml."""
    return path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()


def excuses() -> dict[str, dict[str, str]]:
    text = (ROOT / "notebooks" / "literals.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


# -------------------------------------------------------------------- the notebooks


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_measured_number_in_prose_is_shown(path):
    missing, _ = unshown(
        notebooks.read(path), evidence(path), excuses().get(name(path), {})
    )
    said = [f"{name(path)}, {claim}" for claim in missing]
    hint = "print it, mend it, or say in notebooks/literals.toml why it is literal"
    assert not said, "\n".join(["", *said, hint])


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_excuse_is_needed_and_gives_its_reason(path):
    excused = excuses().get(name(path), {})
    _, needed = unshown(notebooks.read(path), evidence(path), excused)
    assert set(excused) == needed, "no longer needed: delete it from literals.toml"
    assert all(len(reason) > 10 for reason in excused.values())
    assert len(excused) <= MOST


def test_excuses_are_for_notebooks_that_there_are():
    assert set(excuses()) <= {name(path) for path in SOURCES}


def test_a_planted_number_in_prose_is_named():
    path = CHAPTERS[0]
    notebook = notebooks.read(path)
    place = next(
        i for i, c in enumerate(notebook.cells) if i > 1 and c.cell_type == "markdown"
    )
    notebook.cells[place].source += "\n\nOn average the agents reach 13.577 of 14."
    missing, _ = unshown(notebook, evidence(path), excuses().get(name(path), {}))
    assert [str(claim) for claim in missing] == [
        f"cell {place}: 13.577 and 14 in 'On average the agents reach 13.577 of 14.'"
    ]


def planted(notebook: NotebookNode, found: Evidence, luck: random.Random) -> Counter:
    """Change true numbers of two digits or more, one at a time: how many are noticed."""
    true = [
        (claim.cell, number)
        for claim in claims(notebook)
        for number in claim.numbers
        if found.shows(claim) and number.digits > 1 and number.value > 10
    ]
    count = Counter()
    for cell, number in luck.choices(true, k=50):
        step = number.unit * luck.choice([i for i in range(-9, 10) if i])
        tenth = (number.value * luck.choice([9, 11]) / 10).quantize(number.unit)
        wrong = str(luck.choice([number.value + step, tenth])).replace("-", "\u2212")
        copied = copy.deepcopy(notebook.cells[cell])
        copied.source = re.sub(
            rf"(?<![\d.,]){re.escape(number.text)}(?![.,]?\d)",
            wrong + " %" * number.percent,
            copied.get("source", ""),
        )
        changed = NotebookNode(cells=[*notebook.cells])
        changed.cells[cell] = copied
        says = [c for c in claims(changed) if c.cell == cell]
        says = [c for c in says if any(n.text.startswith(wrong) for n in c.numbers)]
        if says and wrong != number.text:
            count[all(found.shows(claim) for claim in says)] += 1
    return count


def test_most_numbers_changed_at_random_are_noticed():
    count, luck = Counter(), random.Random(0)
    for path in CHAPTERS:
        count += planted(notebooks.read(path), evidence(path), luck)
    assert count.total() > 500
    assert count[False] / count.total() > 0.8, count


# --------------------------------------------------------------------------- the rule


def read(text: str) -> list[float]:
    return [float(number.value) for *_, number in numbers(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.64", 0.64),
        (".64", 0.64),
        ("1,234 steps", 1234),
        ("1,234.5", 1234.5),
        ("80\u202f000", 80000),
        ("\u22120.5", -0.5),
        ("(-0.5)", -0.5),
        ("10⁻¹²", 1e-12),
        ("1e-12", 1e-12),
        ("3 · 10⁻⁵", 3e-5),
        ("4 × 10²⁴", 4e24),
        ("10K prompts", 10000),
        ("70 °F", 70),
    ],
)
def test_a_number_is_read_as_it_is_written(text, value):
    assert read(text) == [value]


def test_a_range_is_two_numbers_and_its_dash_no_minus():
    assert read("44\u201378 and 5-10") == [44, 78, 5, 10]


def test_a_name_with_a_digit_is_no_number():
    assert read("GPT-4, CartPole-v1, A2C, H800, v1.2.3, s_0") == []


def notebook(*cells: tuple[str, str]) -> NotebookNode:
    """A notebook of ("prose", text), ("code", source) and ("output", text) cells."""
    made = []
    for kind, text in cells:
        if kind == "prose":
            made.append(nbformat.v4.new_markdown_cell(text))
            continue
        said = nbformat.v4.new_output("stream", text=text)
        code = kind == "code"
        made.append(
            nbformat.v4.new_code_cell(
                text if code else "x", outputs=[] if code else [said]
            )
        )
    return NotebookNode(cells=made)


def missing(*cells: tuple[str, str], record=None, published=None) -> list[str]:
    """What the prose of such a notebook says and it does not show."""
    made = notebook(*cells)
    found = shown.of(made)
    found = Evidence(found.lines, found.settings, leaves(record), leaves(published))
    claims_, _ = unshown(made, found, {})
    return [number.text for claim in claims_ for number in claim.numbers]


@pytest.mark.parametrize(
    ("prose", "output"),
    [
        ("It reaches 0.6401.", "J = 0.6401"),
        ("It reaches 0.64.", "J = 0.6401"),
        ("It reaches .64.", "J = 0.6351"),
        ("That is 64 %.", "share 0.6401"),
        ("That is 64 %.", "64% of all"),
        ("That is 64.0%.", "share 0.6401"),
        ("A share of 0.64.", "64 %"),
        ("It falls by 0.5.", "difference -0.52"),
        ("It falls to \u22120.5.", "difference -0.52"),
        ("We play 1,234 games.", "1234 games"),
        ("It takes 37 steps.", "36.9 steps"),
        ("About 20 steps.", "19 steps"),
        ("About 8,000 steps.", "7961 steps"),
        ("Right in 15 of the 16 runs.", "15 of 16"),
        ("It earns 8.75 ± 0.62.", "k = 0: 8.751 (0.617)"),
        ("A gain of 1.2 [0.9, 1.5].", "1.23 [0.91, 1.54]"),
        ("It agrees to $10^{-12}$.", "to 1e-12"),
        ("The mean is $J = 2.94$.", "J 2.9368"),
    ],
)
def test_what_an_output_shows_is_found(prose, output):
    assert missing(("output", output), ("prose", prose)) == []


@pytest.mark.parametrize(
    ("prose", "output", "wrong"),
    [
        ("It reaches 0.65.", "J = 0.6401", ["0.65"]),
        ("It reaches 0.640.", "J = 0.64", ["0.640"]),
        ("It falls to \u22120.5.", "0.52", ["\u22120.5"]),
        ("That is 63 %.", "share 0.6401", ["63 %"]),
        ("That is 64 %.", "64 games", ["64 %"]),
        ("It takes 37 steps.", "36.4 steps", ["37"]),
        ("It takes 37 steps.", "38 steps", ["37"]),
        ("Exactly 8,000 steps.", "7961 steps", ["8,000"]),
        ("About 8,000 steps.", "8500 steps", ["8,000"]),
        ("Right on 7 of 8 seeds.", "7 right\n8 seeds", ["7", "8"]),
        ("Right on 5 of 5 seeds.", "4 of 5 seeds", ["5", "5"]),
        ("It earns 8.75 ± 0.62.", "8.75\n0.62", ["8.75", "0.62"]),
        ("The mean is $J = 2.94$.", "J 2.9268", ["2.94"]),
        ("| best | 0.71 |", "0.72", ["0.71"]),
    ],
)
def test_what_no_output_shows_is_named(prose, output, wrong):
    assert missing(("output", output), ("prose", prose)) == wrong


def test_a_number_in_code_in_view_is_a_setting():
    code = ("code", "gamma = 0.95\nplays = 2**16\nassert x >= 0.98")
    prose = ("prose", "With 0.95 and 65,536 plays, at least 98 %.")
    assert missing(code, prose) == []
    assert missing(("prose", prose[1])) == ["0.95", "65,536", "98 %"]


def test_a_number_in_folded_code_is_no_setting():
    made = notebook(("code", "width = 0.95"), ("prose", "It is 0.95."))
    made.cells[0].metadata["tags"] = ["hide-input"]
    assert len(unshown(made, shown.of(made), {})[0]) == 1


def test_an_output_that_is_not_compared_shows_nothing():
    made = notebook(("output", "0.123 s"), ("prose", "It takes 0.123 s."))
    assert unshown(made, shown.of(made), {})[0] == []
    made.cells[0].metadata["tags"] = ["nbval-ignore-output"]
    assert len(unshown(made, shown.of(made), {})[0]) == 1


def test_two_digits_are_looked_for_in_their_own_section_and_three_everywhere():
    before = [("output", "0.64 and 0.641"), ("prose", "## Another section")]
    assert missing(*before, ("prose", "First 0.64, then 0.641.")) == ["0.64"]
    assert missing(*before, ("prose", "## Summary\n\nFirst 0.64.")) == []


def test_a_record_shows_three_digits_and_a_paper_what_is_published():
    prose = ("prose", "It reaches 0.641, or 0.64.")
    assert missing(prose, record={"runs": [{"J": 0.64123}]}) == ["0.64"]
    told = "used 33,000 prompts"
    assert missing(("prose", f"They {told}."), published=[33000]) == ["33,000"]
    cited = ("prose", f"Ouyang et al. (2022) {told}.")
    assert missing(cited, published=[33000]) == []


@pytest.mark.parametrize(
    "prose",
    [
        "In 2017, on 22 November 2026, as Howard (1960) wrote.",
        "Chapter 12, sections 1.5 and 1.8, Fig. 18, exercises 12.1–12.4, equation (12).",
        "At step 12 of rungs 11 to 14, and on seed 17.",
        "Two rungs, 3 states and 10 apples.",
        "## 12.3 A heading",
        "12. the twelfth item",
        "Set `x = 0.123`, or:\n\n```python\ny = 0.456\n```",
        "See [the paper](https://arxiv.org/abs/1707.06347) and {ref}`fig-123`.",
        "★★ · 15 minutes · derive",
        "| | exercise | minutes |\n|---|---|---|\n| 1.1 | Derive | 15 |",
        "## Further reading\n\n- The 37 details of 1,234 runs.",
        "The sum $\\sum_{t=0}^{123} x_{45}$ over $4^{40}$ paths, $\\frac12$ and $\\tfrac14$.",
        "The 11th of the 12th.",
    ],
)
def test_what_is_literal_asks_for_no_evidence(prose):
    assert missing(("prose", "A title."), ("prose", prose)) == []


def test_a_reference_hides_no_measurement_behind_it():
    prose = "After 500 steps 0.44, at stage 0.71, on seeds 44, in section 0.123."
    assert missing(("prose", ""), ("prose", prose)) == [
        "500",
        "0.44",
        "0.71",
        "44",
        "0.123",
    ]


def test_captions_and_alternative_texts_are_prose():
    made = notebook(("output", "0.51"), ("prose", ""))
    made.cells[0].metadata["mystnb"] = {
        "figure": {"caption": "The mean is 0.52."},
        "image": {"alt": "A line at 0.53."},
    }
    said = [claim.sentence for claim in unshown(made, shown.of(made), {})[0]]
    assert said == ["The mean is 0.52.", "A line at 0.53."]


def test_an_excuse_covers_its_own_words_only():
    made = notebook(("prose", "About 95 % lie within two.\n\nIt wins 95 % of games."))
    excused = {"95 % lie within two": "a normal law", "12 apples": "is not said"}
    left, needed = unshown(made, shown.of(made), excused)
    assert [claim.sentence for claim in left] == ["It wins 95 % of games."]
    assert needed == {"95 % lie within two"}


def test_a_list_item_and_a_row_of_a_table_are_paragraphs_of_their_own():
    text = "Intro\ntext:\n- one\n  more\n- two\n\n| a | b |\n| 1 | 2 |"
    assert [each for each in plain(text) if each] == [
        "Intro text:",
        "- one more",
        "- two",
        "| a | b |",
        "| 1 | 2 |",
    ]
