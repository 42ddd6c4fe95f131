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
TaskSource = Callable[[int, int], Sequence[Task]]  # count, seed -> tasks


def answer_of(text: object) -> str | None:
    """What stands behind the last "</think>": the answer, without the thought.

    None if a "<think>" is still open at the end, or if this is no text at all: then
    nothing was answered.
    """
    if not isinstance(text, str):
        return None
    closed = text.rfind("</think>")
    if text.rfind("<think>") > closed:
        return None
    return text if closed < 0 else text[closed + len("</think>") :]
