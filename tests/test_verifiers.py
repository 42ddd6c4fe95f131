"""The number verifier: what is right, what is wrong, and what must not hurt it."""

import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.worlds.verifiers import (
    denies,
    hedges,
    plain,
    sentences,
    verify_number,
)

MEGABYTE = 1_000_000
BOX = r"\boxed{"

RIGHT = [  # completion, answer
    # plain boxes
    (r"\boxed{7}", 7),
    (r"So the answer is $\boxed{42}$.", "42"),
    (r"\boxed{ 7 }", 7),
    ("\\boxed{\n\t7\n}", 7),
    (r"\boxed{-7}", -7),
    (r"\boxed{-0}", 0),
    (r"\boxed{007}", 7),
    (r"\boxed{1,234,567}", 1234567),
    (r"\boxed{12,345.50}", "12345.5"),
    (r"\boxed{0.5}", Fraction(1, 2)),
    (r"\boxed{0.50}", "1/2"),
    (r"\boxed{2/4}", Fraction(1, 2)),
    (r"\boxed{-2/4}", Fraction(-1, 2)),
    (r"\boxed{1.5/3}", Fraction(1, 2)),
    (r"\boxed{1,000/2,000}", "0.5"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{-\frac{1}{2}}", Fraction(-1, 2)),
    (r"\boxed{\frac{-1}{2}}", Fraction(-1, 2)),
    (r"\boxed{-\frac{-1}{2}}", Fraction(1, 2)),
    (r"\boxed{\frac{1}{-2}}", Fraction(-1, 2)),
    (r"\boxed{\frac{1,000}{0.5}}", 2000),
    (r"\boxed{6/3}", 2),
    (r"\boxed{0/5}", 0),
    (r"\boxed{0.1}", "0.10"),
    (r"\boxed{3.0}", 3),
    (r"\\boxed{7}", 7),  # a backslash too many
    # the last box counts, wherever it stands
    (r"\boxed{5} no, wait: \boxed{7}", 7),
    (r"\boxed{x} \boxed{7}", 7),
    (r"\boxed{7} is the answer, not 8", 7),
    (r"\boxed{7} km", 7),
    (r"\text{the answer is \boxed{7}}", 7),
    (r"{ { stray braces \boxed{7}", 7),
    (r"\boxed{1} } } \boxed{7}", 7),
    (r"\boxed{1} {{ \boxed{2} \boxed{7}", 7),
    (r"\boxed{1} \text{so it is \boxed{7}}", 7),
    (r"\boxed{1} \unboxe{d \boxed{7}}", 7),
    (r"\boxed{1} d{ ed{ xed{ oxed{ \boxed{7}", 7),
    (r"\boxed{\{1\}} \boxed{7}", 7),
    (r"\boxed{\left\{ x \right.} \boxed{7}", 7),
    (r"\boxed{\\\{} \boxed{7}", 7),
    (r"\boxed{\frac{1}{2}} \boxed{\frac{3}{4}}", Fraction(3, 4)),
    # the last number, where there is no box
    ("7", 7),
    ("-7", -7),
    ("The answer is 7.", 7),
    ("The answer is 7!", 7),
    ("3 + 4 = 7.", 7),
    ("3+4=7", 7),
    ("x=-3", -3),
    ("10 - 3", 3),
    ("first 5, then 7,", 7),
    ("She has 7 apples left.", 7),
    ("It is 7 km away", 7),
    ("(7)", 7),
    ("[7];", 7),
    ("f(-7)", -7),
    ("$7$", 7),
    ("it costs $7.50.", "7.5"),
    (r"\(7\)", 7),
    (r"\[7\]", 7),
    (r"$\frac{3}{4}$.", Fraction(3, 4)),
    ("a share of 3/4", Fraction(3, 4)),
    ("**7**", 7),
    ("*7*.", 7),
    ("**Answer: 7**", 7),
    ("Answer:7", 7),
    ("**-7**", -7),
    ("**7.**", 7),
    ("`7`", 7),
    ("'7'", 7),
    ('"7"', 7),
    ("#### 7", 7),
    ("<answer>7</answer>", 7),
    ("| 1 | 7|", 7),
    ("1,234,567 people", 1234567),
    ("7\u00a0km", 7),
    ("5 or 7?", 7),
    ("the answer is 7\n\n", 7),
    ("é 7 ü", 7),
    ("7" * 600, "7" * 600),
    ("0" * 599 + "7", 7),
    (BOX + "0" * 599 + "7}", 7),
]

WRONG = [
    # simply another number
    (r"\boxed{8}", 7),
    (r"\boxed{-7}", 7),
    (r"\boxed{7.0001}", 7),
    (r"\boxed{0.00001001}", "0.00001"),
    (r"\boxed{0.3333333333333333}", Fraction(1, 3)),
    (r"\boxed{1.8446744073709552}", "1.8446744073709553"),
    ("the answer is 7 or 8", 7),
    ("nothing here", 7),
    ("", 7),
    # no second place to look once there is a box
    (r"7 \boxed{x}", 7),
    (r"\boxed{7} \boxed{x}", 7),
    (r"\boxed{7} \boxed{8}", 7),
    (r"\boxed{} 7", 7),
    (r"\boxed{7, 8}", 7),
    (r"\boxed{7 or 8}", 7),
    (r"\boxed{\{7, 8\}}", 7),
    (r"\boxed{[7]}", 7),
    (r"\boxed{(7)}", 7),
    (r"\boxed{x = 7}", 7),
    (r"\boxed{7} \boxed{", 7),
    (r"\boxed{7", 7),
    (r"\boxed{7 ", 7),
    (r"\boxed{\boxed{7}}", 7),
    (r"\boxed{\boxed{7}", 7),
    (r"\boxed{8 \boxed{7}}", 7),
    (r"\boxed{8 {} \boxed{7}", 7),
    (r"\boxed{8 \boxed{1} \boxed{7}}", 7),
    (r"\boxed{1} \boxed{8 \} \boxed{7}}", 7),
    (r"\boxed{\\{1} \boxed{7}}", 7),
    (r"\boxed{{1} {2} \boxed{7}}", 7),
    (r"\boxed{1} \boxed{8 {} \boxed{7}}", 7),
    (r"\boxed{{7}}", 7),
    (r"\boxed{\text{7}}", 7),
    (r"\boxed{\frac{7}{1}\boxed{7}}", 7),
    # percent, units, exponents, nan, inf, x/0
    (r"\boxed{7\%}", 7),
    (r"\boxed{7%}", 7),
    (r"\boxed{7 km}", 7),
    (r"\boxed{7^1}", 7),
    (r"\boxed{7!}", 7),
    (r"\boxed{7e0}", 7),
    (r"\boxed{1e3}", 1000),
    (r"\boxed{1E3}", 1000),
    (r"\boxed{0x10}", 16),
    (r"\boxed{1_000}", 1000),
    (r"\boxed{nan}", 0),
    (r"\boxed{inf}", 0),
    (r"\boxed{1/0}", 0),
    (r"\boxed{0/0}", 0),
    (r"\boxed{1/0.00}", 0),
    (r"\boxed{\frac{1}{0}}", 0),
    (r"\boxed{\frac{1}{-0}}", 0),
    ("1/0", 0),
    # not quite numbers
    (r"\boxed{+7}", 7),
    (r"\boxed{--7}", 7),
    (r"\boxed{- 7}", -7),
    (r"\boxed{7.}", 7),
    (r"\boxed{.5}", "0.5"),
    (r"\boxed{7..0}", 7),
    (r"\boxed{1,23}", 123),
    (r"\boxed{1,2345}", 12345),
    (r"\boxed{1234,567}", 1234567),
    (r"\boxed{0,123}", 123),
    (r"\boxed{,123}", 123),
    (r"\boxed{1,,234}", 1234),
    (r"\boxed{1 234}", 1234),
    (r"\boxed{1{,}234}", 1234),
    (r"\boxed{1/2/1}", "1/2"),
    (r"\boxed{1/-2}", "-1/2"),
    (r"\boxed{1 / 2}", "1/2"),
    (r"\boxed{1 1/2}", "3/2"),
    (r"\boxed{\frac12}", "1/2"),
    (r"\boxed{\frac{1}{2}", "1/2"),
    (r"\boxed{\frac{1}}", 1),
    (r"\boxed{\frac{\frac{1}{2}}{1}}", "1/2"),
    (r"\boxed{\frac{1}{2}/2}", "1/4"),
    # the last word with a digit is no number
    ("7%", 7),
    ("7 %", 7),
    (r"7\%", 7),
    (r"$7$\%", 7),
    ("7 percent", 7),
    ("7 per cent", 7),
    ("7km", 7),
    ("x7", 7),
    ("X7", 7),
    ("7X", 7),
    ("7 m2", 7),
    ("1e5", 5),
    ("1e5", 100000),
    ("2^7", 7),
    ("2^{7}", 7),
    ("x_7", 7),
    ("10-3", 3),
    ("10-3", -3),
    ("5-7", 7),
    ("12/5/1999", 1999),
    (".7", 7),
    ("+7", 7),
    ("~7", 7),
    ("7,8", 8),
    ("7;8", 8),
    ("1,23", 23),
    ("[1,2]", 2),
    ("2**7", 7),
    ("2 **7", 7),
    ("(2)**7", 7),
    ("*7", 7),
    ("**7*", 7),
    ("7+", 7),
    ("\\7", 7),
    ("7" * 601, "7" * 600),
    ("0" * 600 + "7", 7),
    (BOX + "0" * 600 + "7}", 7),
    ("*" * 601 + "7", 7),
    ("7" + "." * 600, 7),
    # unicode
    (r"\boxed{７}", 7),
    (r"\boxed{٧}", 7),
    (r"\boxed{７} 7", 7),
    (r"\boxed{7²}", 7),
    (r"\boxed{−7}", 7),
    (r"\boxed{−7}", -7),
    ("\\boxed{7\u200b}", 7),
    ("\\boxed{\u202e7}", 7),
    ("\\boxed{\u00a07}", 7),
    ("７", 7),
    ("٧", 7),
    ("7 and then ８", 7),
    ("é " * 6000 + "7 ８", 7),
    ("7 ½", 7),
    ("7 ²", 7),
    ("7 ④", 7),
    ("7²", 7),
    ("−7", 7),
    ("–7", 7),
    ("7\u200b", 7),
    ("\u202e7", 7),
    ("七", 7),
    # code
    ("__import__('os').system('exit 7') or 7.real", 7),
    (r"\boxed{__import__('os').getpid()}", 7),
    (r"\boxed{eval('3+4')}", 7),
    (r"\boxed{3+4}", 7),
    (r"\boxed{10**10**10}", 10),
    ("10**10**10", 10),
    ("9^9^9^9", 9),
    (r"\boxed{9^{9^{9}}}", 9),
    (r"\boxed{lambda: 7}", 7),
    (r"\input{/etc/passwd} \boxed{\input{7}}", 7),
    (r"\boxed{%d}" + "7", 7),
    ("\x00\x1b[7m", 7),
]


@pytest.mark.parametrize(("completion", "answer"), RIGHT, ids=range(len(RIGHT)))
def test_a_right_answer_is_right(completion, answer):
    assert verify_number(completion, answer) is True


@pytest.mark.parametrize(("completion", "answer"), WRONG, ids=range(len(WRONG)))
def test_anything_else_is_wrong(completion, answer):
    assert verify_number(completion, answer) is False


@pytest.mark.parametrize("completion", [None, 7, 7.0, b"7", ["7"], {"a": 7}, object()])
def test_a_completion_that_is_no_text_is_wrong(completion):
    assert verify_number(completion, 7) is False


def test_the_answer_may_be_text_an_int_or_a_fraction():
    for answer in (
        "1,500",
        "1500",
        "3000/2",
        r"\frac{3000}{2}",
        1500,
        Fraction(3000, 2),
    ):
        assert verify_number(r"\boxed{1500}", answer)
        assert not verify_number(r"\boxed{1501}", answer)


WANTED = r"wanted an int, a Fraction or a str like '-1,234.5', '3/4' or '\frac{3}{4}'"


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        ("seven", "'seven'"),
        ("", "''"),
        ("7%", "'7%'"),
        (" 7", "' 7'"),
        ("7\n", r"'7\n'"),
        ("1/0", "'1/0'"),
        ("nan", "'nan'"),
        ("７", "'７'"),
        (7.0, "7.0"),
        (True, "True"),
        (None, "None"),
        ("7" * 601, "'777777777777...7777777777777'"),
        (10**600, "more than 600 digits"),
        (-(10**600), "more than 600 digits"),
        (Fraction(1, 10**600), "more than 600 digits"),
        (10**5000, "more than 600 digits"),
    ],
    ids=range(16),
)
def test_an_answer_that_is_no_number_is_an_error_of_the_data(answer, got, refuses):
    with refuses(f"answer: got {got}, {WANTED}"):
        verify_number("7", answer)


def test_the_answer_is_checked_before_the_completion_is_read(refuses):
    with refuses(f"answer: got 1.5, {WANTED}"):
        verify_number(None, 1.5)


def test_numbers_of_six_hundred_characters_are_read_whatever_python_s_limit():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)  # the least that Python allows
    try:
        big = "9" * 600
        assert verify_number(BOX + big + "}", big)
        assert verify_number(big, 10**600 - 1)
        assert not verify_number(BOX + "9" * 601 + "}", 10**600 - 1)
        assert not verify_number(BOX + "9" * 5000 + "}", 7)
        assert not verify_number("9" * 5000, 7)
        fraction = big[:298] + "/" + big[:301]
        assert verify_number(BOX + " " * 9 + fraction + " " * 9 + "}", fraction)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_numeral_that_is_no_ascii_digit_is_noticed_for_ten_thousand_characters():
    assert not verify_number("7 " + "é" * 9997 + "８", 7)
    assert verify_number("7 " + "é" * 9998 + "８", 7)


def test_spaces_in_a_box_are_few():
    assert verify_number(BOX + " " * 9 + "7" + " " * 9 + "}", 7)
    assert not verify_number(BOX + " " * 10 + "7}", 7)
    assert not verify_number(BOX + "7" + " " * 10 + "}", 7)


# ---------------------------------------------------------------- resources

BIG = {
    "digits": "9" * MEGABYTE,
    "thousands": "1,111,111" * (MEGABYTE // 9),
    "a tower of powers": "10**" * (MEGABYTE // 4) + "10",
    "boxes": (BOX + "8} ") * (MEGABYTE // 10),
    "open boxes": BOX * (MEGABYTE // 7) + "7}",
    "boxes in boxes": BOX * 70_000 + "7" + "}" * 70_000,
    "twenty thousand braces": BOX + "{" * 20_000 + "7" + "}" * 20_001,
    "braces in a box": BOX + "{}" * (MEGABYTE // 2) + BOX + "7}",
    "deep braces in a box": BOX + "{" * 400_000 + "}" * 400_000 + BOX + "7}",
    "closing braces": "}" * MEGABYTE + BOX + "8}",
    "backslashes": BOX + "8}" + "\\" * MEGABYTE + BOX + "8}",
    "escapes": BOX + r"\{" * (MEGABYTE // 2) + BOX + "7}",
    "fractions": r"\frac{1}{2}" * (MEGABYTE // 11),
    "an open fraction": BOX + r"\frac{" * (MEGABYTE // 6),
    "spaces": "8" + " " * MEGABYTE,
    "spaces in a box": BOX + " " * MEGABYTE + "7}",
    "letters": "a" * MEGABYTE,
    "points": "7" + "." * MEGABYTE,
    "stars": "*" * MEGABYTE + "7" + "*" * MEGABYTE,
    "minus signs": "-" * MEGABYTE + "7",
    "slashes": "7/" * (MEGABYTE // 2),
    "umlauts after a number": "7%" + "ü" * MEGABYTE,
    "smileys": "\U0001f600" * MEGABYTE,
    "surrogates": "\ud800" * MEGABYTE + "x7",
    "surrogates in a box": BOX + "\ud800" * MEGABYTE + BOX + "7}",
    "foreign digits": "٣" * MEGABYTE,
}


@pytest.mark.parametrize("shape", BIG)
def test_a_megabyte_of_anything_gets_its_verdict_in_time(shape, ends):
    assert verify_number(BIG[shape], 7) is False


def test_a_megabyte_between_two_boxes_hides_neither(ends):
    for filler in ("the 7 ", "{}", r"\{", "}", r"\boxed{8} ", "\\\\", "ü", "\ud800"):
        text = BOX + "8} " + filler * (MEGABYTE // len(filler)) + BOX + "7}"
        assert verify_number(text, 7)
        assert not verify_number(text.replace("8} ", "8 ", 1), 7) or filler == "}"


def test_threads_and_repetition_give_the_same_verdicts():
    cases = [(*case, True) for case in RIGHT] + [(*case, False) for case in WRONG]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            got = list(pool.map(lambda case: verify_number(case[0], case[1]), cases))
            assert got == [wanted for *_, wanted in cases]


# ---------------------------------------------------------------- properties


def tops(text):
    """What the boxes hold that are in no other box, by counting braces; None: never closed."""
    found, depth, opened, at = [], 0, None, 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in ("\\", "{", "}"):
            at += 2
        elif text.startswith(BOX, at):
            if opened is None:
                opened = (depth, at + len(BOX))
            depth, at = depth + 1, at + len(BOX)
        else:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if opened is not None and depth == opened[0]:
                found.append(text[opened[1] : at])
                opened = None
            at += 1
    return found if opened is None else [*found, None]


pieces = st.sampled_from(
    [BOX, "{", "}", "\\{", "\\}", "\\\\", "7", "8", " ", "x", "7}"]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join))
def test_boxes_are_found_as_a_patient_reader_finds_them(text):
    boxes = tops(text)
    if boxes and r"\\boxed" not in text:
        content = boxes[-1]
        wanted = content is not None and re.fullmatch(r" {0,9}0*7 {0,9}", content)
        assert verify_number(text, 7) is bool(wanted)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(max_size=60), st.booleans())
def test_random_text_never_raises(text, boxed):
    whole = BOX + text + "}" if boxed else text
    assert verify_number(whole, 7) in (True, False)


alphabet = st.text(alphabet="0123456789-,./\\{}frac boxed%^e*()$", max_size=30)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(alphabet, st.integers(-20, 20))
def test_text_made_of_the_grammar_s_own_letters_never_raises(text, answer):
    for whole in (text, BOX + text, BOX + text + "}"):
        assert verify_number(whole, answer) in (True, False)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(0, 4))
def test_numbers_are_equal_however_they_are_written(over, under, places):
    value = Fraction(over, under)
    sign = "-" if over < 0 else ""
    decimal = Fraction(over, 10**places)
    whole, part = divmod(abs(over), 10**places)
    point = f".{part:0{places}}" if places else ""
    ways = {
        f"{over}/{under}": value,
        f"{over:,}/{under:,}": value,
        rf"\frac{{{over}}}{{{under}}}": value,
        rf"{sign}\frac{{{abs(over)}}}{{{under}}}": value,
        f"{sign}{whole}{point}": decimal,
        f"{sign}{whole:,}{point}": decimal,
        f"{sign}{whole:,}{point}0": decimal if point else None,
    }
    for text, wanted in ways.items():
        if wanted is None:
            continue
        for whole_text in (f"{BOX}{text}}}", f"so it is {text}.", f"x = ${text}$"):
            assert verify_number(whole_text, wanted)
            assert not verify_number(whole_text, wanted + Fraction(1, 10**12))
            assert verify_number(whole_text, text)


def test_random_bytes_of_every_plane_never_raise():
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(40)))
        for whole in (text, text + "7", "7" + text, BOX + text + "7}"):
            assert verify_number(whole, 7) in (True, False)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    "text",
    [
        "It is not so.",
        "NOT so",
        "No!",
        "it was never so",
        "It isn't so.",
        "They don\u2019t.",
        "She cannot",
        "neither this nor that",
        "Nobody knows.",
        "not-so",
    ],
)
def test_a_text_with_a_word_of_negation_denies(text):
    assert denies(text) and not plain(text)


@pytest.mark.parametrize(
    "text", ["Maybe.", "it is so, PERHAPS", "this or that", "I think so", "may"]
)
def test_a_text_with_a_word_of_doubt_hedges(text):
    assert hedges(text) and not denies(text) and not plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is so.",
        "I know the north wind, it noted a knot.",  # words that only hold one
        "a story of corn in the month of May's orchard",
        "<think> 3 + 4 = 7. </think> 7",  # a mark, not a word
        "It\u2019s here.",
    ],
)
def test_a_text_without_either_is_plain(text):
    assert plain(text) and not denies(text) and not hedges(text)


def test_a_letter_of_another_script_is_not_plain():
    assert not plain("n\u043et") and not plain("\uff4eot") and not plain("no\u200bt")


def test_a_sentence_ends_at_its_mark_or_with_the_line():
    assert sentences("Is it? It is! So; and\nso. 3") == [
        *("Is it?", " It is!", " So;", " and\n", "so.", " 3")
    ]
    assert sentences("") == sentences("...?!\n") == []


@pytest.mark.parametrize(
    "unit", ["1+", "1 + ", "= 1 ", "1=", "1,111", "-", "1 is ", "7"]
)
def test_words_and_numbers_of_any_text_are_read_at_once(unit, ends):
    for length in (1000, MEGABYTE):
        text = (unit * length)[:length]
        assert not denies(text) and not hedges(text)
