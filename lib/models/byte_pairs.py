"""The tokenizer of a real model: bytes, and the pairs of pieces that are often joined.

A text is cut into words, spaces, signs and single digits; each of these becomes bytes,
and byte-pair encoding (Sennrich et al. 2016) joins neighbours in the order in which its
file lists the pairs. Every text has ids, and `decode(encode(text)) == text`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lib import require

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True)
class BytePairTokenizer:
    """Text to ids and back; a prompt is the text behind one `begin`.

    Text cannot forge a control token: typing "<|im_end|>" yields its characters.
    """

    pieces: Any  # a `tokenizers.Tokenizer`, see `byte_pairs`
    begin: int  # stands before every text
    end: int  # what a model says when it is done
    pad: int

    def __len__(self) -> int:
        return self.pieces.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        if not isinstance(text, str):
            require.refuse("text", type(text).__name__, "a str")
        return self.pieces.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of the ids; control tokens are left out, or shown if `special`."""
        numbers = [int(i) for i in ids]
        return self.pieces.decode(numbers, skip_special_tokens=not special)

    def prompt(self, text: str) -> list[int]:
        """What a model reads before it goes on with a text."""
        return [self.begin, *self.encode(text)]


@dataclass(frozen=True)
class ChatTokenizer(BytePairTokenizer):
    """The same, and a prompt is what a user says to an assistant (ChatML)."""

    system: str = SYSTEM

    def prompt(self, text: str) -> list[int]:
        """The system's message, the user's, and the assistant's turn."""
        begin, end, line = self.turn, self.end, self.encode("\n")
        said = {"system": self.system, "user": text}
        turns = [
            [begin, *self.encode(f"{r}\n{t}"), end, *line] for r, t in said.items()
        ]
        return [*sum(turns, []), begin, *self.encode("assistant\n")]

    @property
    def turn(self) -> int:
        """What stands before each message."""
        return self.pieces.token_to_id("<|im_start|>")


def byte_pairs(
    words: Sequence[str], merges: Sequence[str], control: Sequence[int]
) -> Any:
    """The engine (a `tokenizers.Tokenizer`), from a file's pieces, pairs and control ids.

    Digits are cut out one by one before all else, as the file's rule "smollm" has it.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = [tuple(each.split(" ")) for each in merges]
    engine = Tokenizer(models.BPE(vocabulary, pairs))
    cuts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)]
    cuts += [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    engine.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    engine.decoder = decoders.ByteLevel()
    special = [AddedToken(words[i], special=True, normalized=False) for i in control]
    engine.add_special_tokens(special)
    engine.encode_special_tokens = True  # as ordinary text
    return engine
