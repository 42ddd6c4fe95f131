"""Text to token ids and back, without loss.

The vocabulary: three control tokens, every printable ASCII character and the newline,
then the words of a language, each with the space before it, as modern tokenizers cut
them. A text is cut into the longest words known and spelled where no word fits:
nothing a reader can type in ASCII is out of reach, and `decode(encode(text)) == text`.
"""

import contextlib
import operator
import re
from collections.abc import Iterable, Sequence

from lib import require

CONTROL = ("<|pad|>", "<|begin|>", "<|end|>")
CHARACTERS = tuple("\n" + "".join(map(chr, range(32, 127))))


class Tokenizer:
    """ids 0, 1, 2: pad, begin, end; then the characters; then `words`.

    A word may hold any printable characters; it is only cut out of a text where no
    further letter or digit follows, so that "foxes" is never "fox" and "es". Text can
    not forge a control token: typing "<|end|>" yields its seven characters.
    """

    pad, begin, end = range(3)

    def __init__(self, words: Sequence[str]) -> None:
        for word in words:
            if not isinstance(word, str) or len(word) < 2:
                require.refuse("words", repr(word), "strings of at least 2 characters")
            _known(word, "words")
        if len(set(words)) < len(words):
            twice = next(w for i, w in enumerate(words) if w in words[:i])
            require.refuse("words", f"{twice!r} twice", "each word once")
        self.pieces = (*CONTROL, *CHARACTERS, *words)
        text_ids = range(len(CONTROL), len(self.pieces))
        self._ids = {self.pieces[i]: i for i in text_ids}
        longest_first = sorted(words, key=len, reverse=True)
        whole = [re.escape(w) + _guard(w) for w in longest_first]
        self._cut = re.compile("|".join([*whole, r"[\s\S]"]))

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a character outside ASCII is refused with its place."""
        if not isinstance(text, str):
            require.refuse("text", type(text).__name__, "a str")
        _known(text, "text")
        return [self._ids[piece] for piece in self._cut.findall(text)]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of the ids (a list or a 1-D Tensor).

        Control tokens are left out, or shown as <|pad|>, <|begin|>, <|end|> if
        `special`.
        """
        numbers = [self._number(i) for i in ids]
        shown = numbers if special else [i for i in numbers if i >= len(CONTROL)]
        return "".join(self.pieces[i] for i in shown)

    def _number(self, i: object) -> int:
        """An id as an int; whatever is none is refused."""
        with contextlib.suppress(TypeError):  # what has no index is no integer
            if 0 <= operator.index(i) < len(self):
                return operator.index(i)
        require.refuse("ids", i, f"integers in 0 … {len(self) - 1}")


def _known(text: str, name: str) -> None:
    """Nothing but characters that have an id."""
    if not set(text) <= set(CHARACTERS):
        at = next(i for i, c in enumerate(text) if c not in CHARACTERS)
        got = f"{text[at]!r} at position {at}"
        require.refuse(name, got, "printable ASCII and newlines")


def _guard(word: str) -> str:
    """A word that ends in a letter or digit must end there in the text as well."""
    return "(?![A-Za-z0-9])" if word[-1].isalnum() else ""
