"""What a model is asked, and where in its text the answer stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.models.tokenizer import Tokenizer
from lib.worlds.language import TOKENIZER


@dataclass(frozen=True)
class Task:
    """One request of one skill, at one level, with an answer that is right."""

    skill: str
    level: int
    request: str
    answer: str

    @property
    def prompt(self) -> str:
        """What the model reads; its answer begins with a space."""
        return f"Q: {self.request}\nA:"

    @property
    def tokenizer(self) -> Tokenizer:
        """How the prompt becomes tokens."""
        return TOKENIZER


TaskSampler = Callable[[int], Sequence[Task]]  # number of an update -> P tasks


def answer_of(text: object) -> str | None:
    """The answer of a text: the whole of it, or what stands behind its one thought.

    A thought is between "<think>" and "</think>", and nothing stands before it. None if
    it is still open at the end, if there are two, if one is closed that was never
    opened, or if this is no text at all: then nothing was answered, or more than once.
    """
    if not isinstance(text, str):
        return None
    thought, closed, answer = text.rpartition("</think>")
    if "<think>" in answer:
        return None
    if not closed:
        return text
    opened = thought.lstrip().startswith("<think>")
    alone = thought.count("<think>") == 1 and "</think>" not in thought
    return answer if opened and alone else None
