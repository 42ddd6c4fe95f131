r"""Right or wrong, read from text that nobody may trust.

A policy trained against a verifier searches for whatever the verifier accepts. So the
grammar is small and everything outside it is wrong: there is no `eval`, no algebra, no
second place to look once there is a box. Regular expressions see a thousand characters
at most; the rest of the text is only searched for fixed strings, so that a megabyte of
anything costs milliseconds.

Words are read for one thing only: whether a sentence denies or hedges what it says. That
is a list of English words and no grammar, so it errs on the side of "says nothing".
"""

import re
import reprlib
from fractions import Fraction

import numpy as np

from lib import require

LIMIT = 600  # characters in a number; Python's `int` always reads this many digits
AHEAD = 10_000  # characters after the last digit that are searched for other numerals

_DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
_NUMBER = re.compile(
    rf"(?P<sign>-?)(?:\\frac\{{(?P<over>-?{_DIGITS})\}}\{{(?P<under>-?{_DIGITS})\}}"
    rf"|(?P<whole>{_DIGITS})(?:/(?P<parts>{_DIGITS}))?)"
)
_BOX = r"\boxed{"
_IN_BOX = re.compile(rf"[ \t\n]{{0,9}}({_NUMBER.pattern})[ \t\n]{{0,9}}\}}")

_BREAKS = r"\s=(\[<>|#$:\"'`"  # what may stand on a number's left, outside its word
_BREAK, _NO_BREAKS = re.compile(f"[{_BREAKS}]"), re.compile(f"[^{_BREAKS}]*")
_WORD = re.compile(rf"(?P<bold>\**){_NUMBER.pattern}(?P<tail>[.,;:!?*)\]\\]*)")
_PERCENT = re.compile(r"[\s$]{0,9}\\?(?:%|per ?cent)")
_FOREIGN = re.compile(  # numerals that are no ASCII digits: ٣, ３, ², ½, Ⅳ, ④
    r"[^\W\D0-9]|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u218b\u2460-\u24ff]"
)

_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]?")  # with the mark that ends it
_TAG = re.compile(r"</?think>")
_WORDS = re.compile(r"[a-z]+(?:['\u2019][a-z]+)?")
_DENIALS = frozenset(
    """
    no not never none nor neither nothing nobody cannot without hardly barely anything
    false untrue wrong isnt arent wasnt werent doesnt dont didnt cant wont aint
    """.split()
)
_HEDGES = frozenset(
    """
    maybe perhaps possibly probably likely or either if whether might may could would
    should think believe guess suppose seem seems doubt unsure almost
    """.split()
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the mark (. ! ? ; or a line's end) behind it."""
    return _SENTENCE.findall(text)


def denies(text: str) -> bool:
    """Does a word of it negate? "not", "never", "isn't", "false"; `_DENIALS` has all."""
    return any(w in _DENIALS or w.endswith(("n't", "n\u2019t")) for w in _words(text))


def hedges(text: str) -> bool:
    """Does a word of it leave open what is so? "maybe", "or", "I think" (`_HEDGES`)."""
    return not _HEDGES.isdisjoint(_words(text))


def plain(text: str) -> bool:
    """Neither denied nor hedged, and in ASCII, so that no letter passes for another."""
    said = text.replace("\u2019", "'")
    return said.isascii() and not denies(said) and not hedges(said)


def _words(text: str) -> list[str]:
    return _WORDS.findall(_TAG.sub(" ", text).lower())


def verify_number(completion: str, answer: str | int | Fraction) -> bool:
    r"""Does the last `\boxed{…}` or, with none, the last number equal `answer`?

    A number is: optional minus, ASCII digits (with thousands commas or without),
    optional decimals; `a/b` or `\frac{a}{b}` of such; no spaces, at most 600
    characters. It is compared as an exact rational: 0.50 = 1/2, and x/0 is no number.

    *A box* must hold one number and nothing else but spaces. A box inside a box belongs
    to the outer one, and a box that is never closed holds everything after it; so
    neither of them is a number. A box that is not a number is wrong: the text around it
    is not asked.

    *Without a box*, the last word with a digit in it must be a number once brackets,
    quotes, `$`, bold stars and final punctuation are off. "It is 7.", "x=7" and "7 km"
    say 7; "7%", "7 percent", "7km", "1e5", "x7", "2^7", "10-3", "12/5/1999" and "−7"
    with a typographic minus say nothing. A minus with a space after it is no sign.

    `completion` may be anything and raises nothing (what is no str is wrong); an
    `answer` that is no number is an error of the data and raises ValueError.
    """
    wanted = _answer(answer)
    if not isinstance(completion, str):
        return False
    box = completion.rfind(_BOX)
    found = _last_number(completion) if box < 0 else _boxed(completion, box)
    return found is not None and _value(found) == wanted


def _answer(answer: str | int | Fraction) -> int | Fraction:
    wanted = r"an int, a Fraction or a str like '-1,234.5', '3/4' or '\frac{3}{4}'"
    if isinstance(answer, str):
        match = _NUMBER.fullmatch(answer) if len(answer) <= LIMIT else None
        value = match and _value(match)
        if value is None:
            require.refuse("answer", reprlib.repr(answer), wanted)
        return value
    if isinstance(answer, bool) or not isinstance(answer, (int, Fraction)):
        require.refuse("answer", reprlib.repr(answer), wanted)
    if max(abs(answer.numerator), answer.denominator) >= 10**LIMIT:
        require.refuse("answer", f"more than {LIMIT} digits", wanted)
    return answer


def _value(number: re.Match[str]) -> Fraction | None:
    """The rational that a match of the grammar stands for; None for x/0."""
    over = _decimal(number["over"] or number["whole"])
    under = _decimal(number["under"] or number["parts"] or "1")
    sign = -1 if number["sign"] else 1
    return None if under == 0 else sign * over / under


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _boxed(text: str, box: int) -> re.Match[str] | None:
    """The number in the box that opens at `box`, the last one, if it is one."""
    start = box + len(_BOX)
    inside = _IN_BOX.match(text, start, start + 2 * LIMIT)
    wrong = inside is None or len(inside[1]) > LIMIT or _enclosed(text[:box])
    return None if wrong else inside


def _enclosed(before: str) -> bool:
    r"""Is a box still open at the end of this text? (`\{` and `\}` are no braces.)

    A box is open if from its brace to the end the depth never falls below its own.
    """
    first, last = before.find(_BOX), before.rfind(_BOX)
    if first < 0 or "}" not in before[last:]:
        return first >= 0  # there is none; or there is, and nothing can have closed it
    code = before[first:].encode("ascii", "replace")
    for escaped in (b"\\\\", b"\\{", b"\\}"):
        code = code.replace(escaped, b"")
    text = np.frombuffer(code, np.uint8)
    at = np.flatnonzero((text == ord("{")) | (text == ord("}")))
    opens = text[at] == ord("{")
    depth = np.where(opens, np.int8(1), np.int8(-1)).cumsum(dtype=np.int32)
    boxes = np.flatnonzero(opens)
    for back, letter in enumerate(reversed(b"boxed"), start=1):
        boxes = boxes[text[at[boxes] - back] == letter]
    lowest = np.minimum.reduceat(depth, boxes)  # from each box to the next one
    lowest_after = np.minimum.accumulate(lowest[::-1])[::-1]
    return bool((lowest_after >= depth[boxes]).any())


def _last_number(text: str) -> re.Match[str] | None:
    """The last word with a digit, if it is a number and no percentage."""
    digit = max(text.rfind(d) for d in "0123456789")  # -1: then no word will match
    left = _BREAK.split(text[max(0, digit - LIMIT) : digit + 1])[-1]
    right = _NO_BREAKS.match(text, digit + 1, digit + 1 + LIMIT)
    word = _WORD.fullmatch(left + right[0])
    wrong = (
        word is None
        or len(word[0]) > LIMIT
        or word["tail"].count("*") < len(word["bold"])
        or _PERCENT.match(text, right.end())
        or _FOREIGN.search(text, digit, digit + AHEAD)
    )
    return None if wrong else word
