"""A reward model: a language model that ends in a number instead of a next token.

It starts as a copy of the model that wrote the answers, with a head of zeros where the
vocabulary was, and learns from comparisons: two answers to one request, and which of
them somebody preferred (Stiennon et al. 2020). The score of an answer is what the head
says at its last token, when everything has been read. `SurprisalRewardModel` also
hears, token by token, how surprised the model was that it is a copy of.

Shapes: N comparisons, B rows, n tokens of a text.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lib import require
from lib.losses.reward import Loss, bradley_terry
from lib.models.attention import causal
from lib.models.transformer import Transformer
from lib.ops import token_logps
from lib.preference_data import PreferencePairs
from lib.rollout import Rollout
from lib.train import History, fit, minibatches, warm_cosine

EPOCHS, LR, BATCH, CENTRE = 2, 2e-3, 64, 0.01


class RewardModel(nn.Module):
    """A copy of a trunk with `outputs` numbers at every token; all are 0 at first.

    tokens (B, n) -> (B, n), or (B, n, outputs) for more than one. Causal: what stands
    at place t has read tokens[: t + 1].
    """

    def __init__(self, trunk: Transformer, *, outputs: int = 1) -> None:
        super().__init__()
        require.count("outputs", outputs)
        self.trunk = copy.deepcopy(trunk)
        like = {"dtype": trunk.cos.dtype, "device": trunk.cos.device}
        self.head = skip_init(nn.Linear, trunk.config.width, outputs, **like)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n) -> (B, n), or (B, n, outputs)."""
        return self.judged(self.trunk.hidden(tokens))

    def judged(self, hidden: Tensor) -> Tensor:
        """(B, n, width) -> (B, n), or (B, n, outputs)."""
        said = self.head(hidden)  # (B, n, outputs)
        if self.head.out_features > 1:
            return said
        return said.squeeze(-1).clone()  # no view: FSDP2 puts a hook on it


class SurprisalRewardModel(RewardModel):
    """A reward model that hears how surprising each token was to the trunk.

    To check a fact, one has to predict the word and then compare it with what is there.
    Here a frozen copy of the trunk predicts, and the surprise, -log p of each token, is
    added to what the second reader sees, along a direction that is learnt. As
    `RewardModel`.
    """

    def __init__(self, trunk: Transformer, *, outputs: int = 1) -> None:
        super().__init__(trunk, outputs=outputs)
        self.first = copy.deepcopy(trunk).requires_grad_(False)
        self.ear = nn.Parameter(torch.zeros_like(trunk.norm.weight))  # (width,)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n) -> (B, n), or (B, n, outputs)."""
        told = self.surprise(tokens).unsqueeze(-1) * self.ear  # (B, n, width)
        x = self.trunk.embed(tokens) + told
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.judged(self.trunk.read(x, places, causal))

    @torch.no_grad()
    def surprise(self, tokens: Tensor) -> Tensor:
        """-log p of each token after those before it, nats: (B, n); 0 for the first."""
        if tokens.shape[1] == 1:
            return torch.zeros_like(tokens, dtype=self.ear.dtype)
        logps = token_logps(self.first(tokens[:, :-1]), tokens[:, 1:])
        return -nn.functional.pad(logps, (1, 0))


# --- the score of an answer -----------------------------------------------------------


def read(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Prompt and answer as one text, (B, n), and where each row's last token is, (B,).

    The last token is the last that the writer chose: end-of-text, if he came to it.
    Padding behind the longest row is cut off.
    """
    require.every_row_true(rollout.mask)
    last = rollout.ends.long().argmax(1) + 1  # an action is one place after its state
    width = int(last.max())
    tokens = torch.cat((rollout.states[:, :1], rollout.actions[:, :width]), 1)
    return tokens, last


def at_last(model: nn.Module, rollout: Rollout) -> Tensor:
    """(B,) what a model of one output says at each row's last token."""
    tokens, last = read(rollout)
    return model(tokens).gather(1, last.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def score(model: nn.Module, rollout: Rollout, *, batch: int = 128) -> Tensor:
    """The score of each answer: (B,) float64, without gradient.

    `batch` rows are read at a time, short ones with short ones.
    """
    require.count("batch", batch)
    like = {"dtype": torch.float64, "device": rollout.mask.device}
    found = torch.zeros(len(rollout), **like)
    for rows in rollout.lengths.argsort(stable=True).split(batch):
        found[rows] = at_last(model, rollout.rows(rows)).double()
    return found


# --- training -------------------------------------------------------------------------


def preference_loss(model: nn.Module, pairs: PreferencePairs, *, centre: float) -> Loss:
    """Bradley–Terry on the scores at the last tokens."""
    chosen, rejected = at_last(model, pairs.chosen), at_last(model, pairs.rejected)
    return bradley_terry(chosen, rejected, centre=centre)


def fit_reward_model(
    trunk: Transformer,
    comparisons: PreferencePairs,
    *,
    kind: type[RewardModel] = RewardModel,
    epochs: int = EPOCHS,
    lr: float = LR,
    batch: int = BATCH,
    centre: float = CENTRE,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[RewardModel, History]:
    """A reward model from comparisons; the trunk itself is left as it is.

    The learning rate is `train.warm_cosine`'s, with its peak at `lr`. Two equal answers
    are refused: they teach nothing, whichever was "preferred". Also returns the history
    of `fit`: loss, accuracy and margin of each batch before it was learnt from.
    """
    require.count("epochs", epochs)
    require.count("batch", batch)
    same = comparisons.identical.nonzero()
    if len(same):
        got = f"twice the same answer in pair {same[0].item()}"
        require.refuse("comparisons", got, "two different answers in each")
    model = kind(trunk)
    updates = epochs * math.ceil(len(comparisons) / batch)
    draw = torch.Generator().manual_seed(seed)
    parts = minibatches(len(comparisons), epochs=epochs, batch=batch, generator=draw)
    return model, fit(
        model,
        [comparisons.rows(some) for some in parts],
        lambda model, pairs: preference_loss(model, pairs, centre=centre),
        lr=warm_cosine(lr, updates, warm=20),
        progress=progress,
        over="rows",
    )


def accuracy(model: nn.Module, comparisons: PreferencePairs) -> float:
    """The share of pairs whose chosen answer has the higher score; a tie is wrong."""
    better = score(model, comparisons.chosen) > score(model, comparisons.rejected)
    return better.double().mean().item()
