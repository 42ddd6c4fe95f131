"""Numbers as people and programs write them, and when one of them rounds to another."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

SUPERSCRIPTS = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")
FIGURE = re.compile(
    r"""(?<![\w.])(?<![A-Za-z][-\u2011])  # GPT-4 and v1.2.3 are names
    (?P<sign>[\u2212-](?=\.?\d))?
    (?P<digits>(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
    (?P<power>[eE][+-]?\d+|\s?[·×]\s?10[⁻⁺⁰¹²³⁴-⁹]+|(?<=\b10)[⁻⁺⁰¹²³⁴-⁹]+)?
    (?P<scale>[KM]\b)?
    (?P<percent>\s?%)?""",
    re.VERBOSE,
)
ABOUT = re.compile(
    r"(?:about|nearly|almost|some|around|roughly|close to|over|more than|at least"
    r"|less than|fewer than|under|at most|up to|within|[~≈≥≤<>])\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str
    value: Decimal
    unit: Decimal  # what a one in its last digit is worth
    percent: bool = False
    about: bool = False

    @property
    def digits(self) -> int:
        """How many significant digits it has."""
        return len(str(abs(int(self.value / self.unit))))

    @property
    def whole(self) -> bool:
        """Whether it is written as a plain whole number."""
        return self.unit == 1 and not self.percent

    def slack(self) -> Decimal:
        """How far a number may be off that is rounded to this one.

        "8,000" is 8,000; "about 8,000" is rounded to thousands, but by 5 % at most.
        """
        if self.about and self.unit >= 1:
            digits = str(abs(int(self.value)))
            zeros = len(digits) - len(digits.rstrip("0"))
            rounded = Decimal(1).scaleb(zeros) / 2
            return max(self.unit / 2, min(rounded, abs(self.value) / 20))
        return self.unit / 2


def numbers(text: str) -> list[tuple[int, int, Number]]:
    """(start, end, number) of every number in a text."""
    return [
        (hit.start(), hit.end(), _number(hit, bool(ABOUT.search(text[: hit.start()]))))
        for hit in FIGURE.finditer(text)
    ]


def _number(hit: re.Match[str], about: bool) -> Number:
    digits = re.sub("[,\u00a0\u2009\u202f]", "", hit["digits"])
    power = (hit["power"] or "").translate(SUPERSCRIPTS)
    shift = {"K": 3, "M": 6, None: 0}[hit["scale"]]
    if power and not re.search("[eE·×]", power):  # 10⁻¹²
        digits, shift = "1", int(power)
    elif power:
        shift += int(re.sub(r"^(?:[eE]|\s?[·×]\s?10)", "", power))
    value = Decimal(digits).scaleb(shift)
    unit = Decimal(1).scaleb(Decimal(digits).as_tuple().exponent + shift)
    value = -value if hit["sign"] else value
    return Number(hit[0].strip(), value, unit, bool(hit["percent"]), about)


def shows(seen: Number, said: Number) -> bool:
    """Whether a number that was printed is, rounded as the prose writes it, the prose's.

    A loss may be told without its sign ("falls by 0.5"); a minus sign must be there.
    """
    value, unit = seen.value, seen.unit
    if said.percent and not seen.percent:
        if seen.unit == 1 or abs(value) > 2:
            return False  # 64 is not 64 %, .64 is
        value, unit = value * 100, unit * 100
    elif seen.percent and not said.percent:
        value, unit = value / 100, unit / 100
    if said.value >= 0:
        value = abs(value)
    fine = unit <= said.unit or said.whole and value == said.value
    return fine and abs(value - said.value) <= said.slack()


def all_in(line: Iterable[Number], said: Iterable[Number]) -> bool:
    """Whether a line shows all of these numbers, each by a number of its own."""
    left = list(line)
    for number in said:
        match = next((each for each in left if shows(each, number)), None)
        if match is None:
            return False
        left.remove(match)
    return True
