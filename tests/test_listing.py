"""Listings: lib's source as it is, and the lines by which two functions differ."""

import pytest

from lib import ops
from lib.show import listing


def plain(x):  # (B,)
    """Return x.

    At length.
    """

    # a comment stays
    y = "not a docstring"  # nor this
    return x, y


def shifted(x):  # (B,)
    """Say something else."""
    # a comment stays
    y = "not a docstring"  # nor this
    return x + 1, y


def only_words():
    """Do nothing."""


class Thing:
    """A thing."""

    size: int = 1  # metres

    def grow(self):
        """Grow — größer."""

        def inner():
            """Inside."""
            return 2

        return inner


@pytest.fixture
def shown(monkeypatch):
    """What a listing displays."""
    kept = []
    monkeypatch.setattr(listing, "display", kept.append)
    return kept


def test_a_source_is_shown_as_markdown_and_as_text_without_its_docstring(shown):
    assert listing.source(plain) is None
    want = (
        "def plain(x):  # (B,)\n    # a comment stays\n"
        '    y = "not a docstring"  # nor this\n    return x, y'
    )
    (block,) = shown
    assert repr(block) == want
    assert block._repr_markdown_() == f"```python\n{want}\n```"


def test_the_docstring_is_shown_on_request(shown):
    listing.source(plain, docstring=True)
    assert '"""Return x.\n\n    At length.\n    """' in repr(shown[0])


def test_several_sources_stand_below_each_other(shown):
    listing.source(plain, shifted)
    assert repr(shown[0]).count("\n\n\ndef ") == 1


def test_a_function_of_words_only_keeps_a_body():
    assert listing.code(only_words) == "def only_words():\n    ..."
    compile(listing.code(only_words), "x", "exec")


@pytest.mark.parametrize(
    "text, want",
    [
        ('def f(): "words"; return 1', "def f(): return 1"),
        ('def f(): "größer"', "def f(): ..."),
        ('def f():\n    "words"; return 1', "def f():\n    return 1"),
        ('async def f():\n    "words"\n    return 1', "async def f():\n    return 1"),
        ('def f():\n    x = "no words"', 'def f():\n    x = "no words"'),
        ("def f():\n    # why\n    'words'\n    g()", "def f():\n    # why\n    g()"),
    ],
)
def test_a_docstring_is_cut_however_it_is_written(text, want):
    assert listing.undocumented(text) == want


def test_nested_docstrings_go_and_code_around_them_stays():
    want = (
        "class Thing:\n    size: int = 1  # metres\n\n    def grow(self):\n"
        "        def inner():\n            return 2\n\n        return inner"
    )
    assert listing.code(Thing) == want


def test_a_method_is_dedented():
    assert listing.code(Thing.grow).startswith("def grow(self):\n    def inner():")


@pytest.mark.parametrize("name", [n for n in dir(ops) if callable(getattr(ops, n))])
def test_what_is_listed_of_lib_is_still_python_and_loses_only_words(name):
    thing = getattr(ops, name)
    if getattr(thing, "__module__", "") != "lib.ops":
        return
    code = listing.code(thing)
    compile(code, name, "exec")
    full = listing.code(thing, docstring=True).splitlines()
    assert '"""' not in code
    assert all(line in full for line in code.splitlines())


def test_a_diff_shows_what_comes_and_goes_and_no_headers(shown):
    assert listing.diff(plain, shifted) is None
    want = (
        "-def plain(x):  # (B,)\n+def shifted(x):  # (B,)\n     # a comment stays\n"
        '     y = "not a docstring"  # nor this\n-    return x, y\n+    return x + 1, y'
    )
    assert repr(shown[0]) == want
    assert shown[0]._repr_markdown_() == f"```diff\n{want}\n```"


def test_a_diff_can_leave_out_what_stays():
    assert "comment" not in listing.changes(plain, shifted, context=0)


def test_equal_code_has_an_empty_diff():
    assert listing.changes(plain, plain) == ""


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="things"):
        listing.source()
