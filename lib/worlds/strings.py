"""The skill "strings": questions on the letters of nonsense words.

A word has three to six different letters, all of them consonants, so that the tokenizer
knows none of the words and spells them: to the model a word is a row of letters. The
split is the word's own: a word for testing stands in no page and in no question of
training.
"""

import random
import re

from lib import require
from lib.worlds.language import Split, split_of
from lib.worlds.task import Task, answer_of

ALPHABET = "bcdfgklmnprst"
LEVELS = range(1, 5)  # words of 3, 4, 5 and 6 letters

_PLACES = (
    "What is the {place} letter of {word}?",
    "Say the {place} letter of {word}.",
    "Name the {place} letter of {word}.",
)
_COUNTS = ("How many letters has {word}?", "How many letters has the word {word}?")
_AFTER = (
    "What is after {letter} in {word}?",
    "Name the letter after {letter} in {word}.",
)

_WORD = re.compile(rf"\b[{ALPHABET}]{{3,6}}\b")
_AFTER_WHICH = re.compile(rf" after ([{ALPHABET}]) in ")


def nonsense(draw: random.Random, letters: int) -> str:
    """So many different letters in a row."""
    return "".join(draw.sample(ALPHABET, letters))


def make(draw: random.Random, level: int) -> tuple[str, str]:
    """(request, answer): the first letter, the last, the one after another, how many."""
    word = nonsense(draw, level + 2)
    asked = draw.choice(("first", "last", "after", "many"))
    at = draw.randrange(len(word) - 1)
    wordings = {"after": _AFTER, "many": _COUNTS}.get(asked, _PLACES)
    request = draw.choice(wordings).format(word=word, place=asked, letter=word[at])
    answers = {"first": word[0], "last": word[-1], "after": word[at + 1]}
    return request, answers.get(asked, str(len(word)))


def word_in(request: str) -> str:
    """The nonsense word that a question is about; a text without one is refused."""
    found = _WORD.search(request)
    if found is None:
        wanted = f"a question on a word of 3 to 6 letters of {ALPHABET}"
        require.refuse("request", repr(request), wanted)
    return found[0]


def split(request: str) -> Split:
    """The split of the word asked about."""
    return split_of(word_in(request))


def verify(task: Task, text: str) -> bool:
    """Is this the letter, or the number, worked out from the request itself?

    One letter or one digit, with a full stop or without, and nothing else: there is no
    room in it for a denial, a doubt or a second answer.
    """
    answer = answer_of(text)
    right = _answer(task.request)
    return answer is not None and answer.strip().removesuffix(".") == right


def _answer(request: str) -> str:
    word, after = word_in(request), _AFTER_WHICH.search(request)
    if after:
        return word[word.index(after[1]) + 1]
    if " many " in request:
        return str(len(word))
    return word[0] if " first " in request else word[-1]


# --- what is read ---------------------------------------------------------------------


def page(draw: random.Random) -> str:
    """A lesson on a word for training: what is asked of it, and what to say.

    Most words of lessons are short: letters are learnt from them first.
    """
    while True:
        request, answer = make(draw, draw.choices((1, 2, 3, 4), (4, 3, 2, 1))[0])
        if split(request) == "train":
            return f"Letters: {request}\nSay: {answer}"
