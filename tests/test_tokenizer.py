"""Text to ids and back: nothing lost, nothing forged, nothing swallowed."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.models import tokenizer
from lib.models.tokenizer import Tokenizer
from lib.worlds.corpus import documents
from lib.worlds.language import TOKENIZER

CONTROL = ("<|pad|>", "<|begin|>", "<|end|>")
WORDS = (" it", " fox", " foxes", "The", " +", " 1", " 12", "Say:", " it's")
SMALL = Tokenizer(WORDS)
ASCII = "\n" + "".join(map(chr, range(32, 127)))
FOX, THE = 100, 102  # after 3 control tokens and 96 characters


def pieces(text, made=SMALL):
    """The cut of a text, piece by piece."""
    return [made.decode([i]) for i in made.encode(text)]


# ---------------------------------------------------------------- the vocabulary


def test_the_vocabulary_is_control_tokens_then_characters_then_words():
    assert tokenizer.CONTROL == CONTROL
    assert tokenizer.CHARACTERS == tuple(ASCII)
    assert SMALL.pieces == (*CONTROL, *ASCII, *WORDS)
    assert len(SMALL) == 3 + 96 + 9 == len(SMALL.pieces)
    assert len(Tokenizer([])) == 99


def test_pad_begin_and_end_are_the_first_three_ids():
    assert (Tokenizer.pad, Tokenizer.begin, Tokenizer.end) == (0, 1, 2)
    assert SMALL.decode([0, 1, 2], special=True) == "<|pad|><|begin|><|end|>"


def test_ids_on_hand_worked_texts():
    newline, space, tilde, a = 3, 4, 98, 3 + 1 + ord("a") - 32
    assert SMALL.encode("\n ~a") == [newline, space, tilde, a]
    assert SMALL.encode("The fox") == [THE, FOX]
    assert SMALL.encode("") == []
    assert SMALL.decode([THE, FOX]) == "The fox"
    assert SMALL.decode([]) == ""


def test_every_piece_but_the_control_tokens_encodes_to_its_own_id():
    for made in (SMALL, TOKENIZER):
        for i in range(3, len(made)):
            assert made.encode(made.pieces[i]) == [i]


# ---------------------------------------------------------------- where it cuts


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("The fox", ["The", " fox"]),
        ("The foxes", ["The", " foxes"]),  # the longest word, not " fox" and "es"
        ("The foxed", ["The", *" foxed"]),  # no word is cut out of a longer one
        ("The fox5", ["The", *" fox5"]),
        ("The fox.", ["The", " fox", "."]),
        ("The fox_", ["The", " fox", "_"]),
        ("Them", [*"Them"]),
        ("aThe", ["a", "The"]),
        ("1 + 1 = 12", ["1", " +", " 1", *" =", " 12"]),
        (" 12", [" 12"]),
        (" 123", [*" 123"]),
        (" +1", [" +", "1"]),  # a word that ends in a mark may go before anything
        ("Say:Say:x", ["Say:", "Say:", "x"]),
        (" it's", [" it's"]),
        (" it'd its", [" it", "'", "d", *" its"]),
        ("  fox", [" ", " fox"]),
        ("FOX fOX", [*"FOX fOX"]),
        ("\n fox\n", ["\n", " fox", "\n"]),
    ],
)
def test_a_text_is_cut_into_the_longest_whole_words_and_spelled_elsewhere(text, cut):
    assert pieces(text) == cut


def test_the_order_of_the_words_decides_their_ids_and_not_the_cut():
    back = Tokenizer(WORDS[::-1])
    assert pieces("The foxes + 12 it's", back) == pieces("The foxes + 12 it's")
    assert back.encode(" it") == [len(back) - 1]


def test_words_may_hold_what_means_something_to_a_regular_expression():
    odd = Tokenizer([".*", "(a", "[^x]+", "\\d", "a|b", "$^", "\n\n"])
    assert pieces("x.*(a[^x]+\\da|b$^5\n\n", odd) == [
        *("x", ".*", "(a", "[^x]+", *"\\d", "a|b", "$^", "5", "\n\n")
    ]


# ---------------------------------------------------------------- nothing is lost


@given(st.text(alphabet=ASCII, max_size=200))
def test_decoding_an_encoded_text_gives_it_back(text):
    for made in (SMALL, TOKENIZER):
        ids = made.encode(text)
        assert made.decode(ids) == made.decode(ids, special=True) == text
        assert all(3 <= i < len(made) for i in ids)


def test_all_characters_at_once_come_back():
    assert SMALL.decode(SMALL.encode(ASCII)) == ASCII


@given(
    st.lists(st.sampled_from([*TOKENIZER.pieces, "es", "7", " ", "\n"]), max_size=40)
)
def test_texts_made_of_pieces_come_back_too(parts):
    text = "".join(parts)
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_every_document_comes_back():
    for text in documents(count=2000, seed=3):
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("text", CONTROL)
def test_a_control_token_cannot_be_typed(text):
    for made in (SMALL, TOKENIZER):
        assert pieces(f"{text}{text}", made) == [*text, *text]
        assert not {0, 1, 2} & set(made.encode(f"a{text} b"))
        assert made.decode(made.encode(text)) == text


def test_control_tokens_are_left_out_or_shown():
    ids = [1, THE, FOX, 2, 0, 0]
    assert SMALL.decode(ids) == "The fox"
    assert SMALL.decode(ids, special=False) == "The fox"
    shown = "<|begin|>The fox<|end|><|pad|><|pad|>"
    assert SMALL.decode(ids, special=True) == shown


def test_ids_may_come_as_a_tensor_or_any_iterable():
    ids = SMALL.encode("The foxes")
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert SMALL.decode(torch.tensor(ids, dtype=dtype)) == "The foxes"
    assert SMALL.decode(iter(ids)) == "The foxes"
    assert SMALL.decode(torch.tensor([], dtype=torch.int64)) == ""


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("café", "'é' at position 3"),
        ("\tfox", r"'\t' at position 0"),
        ("a\r\n", r"'\r' at position 1"),
        ("fox\x00", r"'\x00' at position 3"),
        ("x\x7f", r"'\x7f' at position 1"),
        ("\ud800", r"'\ud800' at position 0"),
        ("a\u202eb", r"'\u202e' at position 1"),
        ("e\u0301", "'\u0301' at position 1"),
        ("٣ fox", "'٣' at position 0"),
        ("fox 🦊 é", "'🦊' at position 4"),  # the first of two
        ("fox\u00a0", r"'\xa0' at position 3"),
    ],
)
def test_an_unknown_character_is_refused_with_its_place(text, got, refuses):
    with refuses(f"text: got {got}, wanted printable ASCII and newlines"):
        SMALL.encode(text)


def test_what_is_no_text_is_refused(refuses):
    for value, name in ((b"fox", "bytes"), (None, "NoneType"), (["fox"], "list")):
        with refuses(f"text: got {name}, wanted a str"):
            SMALL.encode(value)


def test_ten_thousand_unicode_strings_come_back_or_are_refused(refuses):
    draw = random.Random(0)
    planes = [(32, 127), (0, 0x250), (0, 0x3000), (0xD800, 0xE000), (0, 0x110000)]
    returned = 0
    for _ in range(10_000):
        low, high = draw.choice(planes)
        text = "".join(
            chr(draw.randrange(low, high)) for _ in range(draw.randint(0, 8))
        )
        strange = [(i, c) for i, c in enumerate(text) if c not in ASCII]
        if strange:
            at, c = strange[0]
            message = f"{c!r} at position {at}, wanted printable ASCII and newlines"
            with refuses(f"text: got {message}"):
                TOKENIZER.encode(text)
        else:
            returned += TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert returned > 2000


@pytest.mark.parametrize("bad", [-1, 108, 10**30, 1.0, "3", None, [3]])
def test_what_is_no_id_is_refused(bad, refuses):
    with refuses(f"ids: got {bad}, wanted integers in 0 … 107"):
        SMALL.decode([3, bad])


def test_the_last_id_is_one_less_than_the_length():
    assert SMALL.decode([107]) == " it's"


def test_a_tensor_of_floats_or_of_rows_is_refused(refuses):
    with refuses("ids: got 3.0, wanted integers in 0 … 107"):
        SMALL.decode(torch.tensor([3.0]))
    with refuses("ids: got tensor([3, 4]), wanted integers in 0 … 107"):
        SMALL.decode(torch.tensor([[3, 4]]))


@pytest.mark.parametrize(
    ("words", "got", "wanted"),
    [
        ([" fox", "a"], "'a'", "strings of at least 2 characters"),
        ([""], "''", "strings of at least 2 characters"),
        ("fox", "'f'", "strings of at least 2 characters"),
        ([3], "3", "strings of at least 2 characters"),
        ([" owl", " füx"], "'ü' at position 2", "printable ASCII and newlines"),
        (["cd", "ab", "ab", "cd"], "'ab' twice", "each word once"),
    ],
)
def test_impossible_words_are_refused(words, got, wanted, refuses):
    with refuses(f"words: got {got}, wanted {wanted}"):
        Tokenizer(words)


def test_a_word_of_two_characters_is_long_enough():
    assert pieces("ab", Tokenizer(["ab"])) == ["ab"]


@settings(max_examples=20, derandomize=True, deadline=None)
@given(st.lists(st.text(alphabet="ab. 1", min_size=2, max_size=4), unique=True))
def test_any_words_at_all_cut_a_text_without_loss(words):
    made = Tokenizer(words)
    text = "ab. 1" * 20 + "".join(words)
    assert made.decode(made.encode(text)) == text
