"""Any causal language model of `transformers` as a policy of this book.

tokens (B, T) -> logits (B, T, A), like `lib.models.transformer.Transformer`, and like it
with `hidden` and `logits`, so that only answers need be scored, and with `prefill` and
`extend`, so that sampling reads each token once:

    policy = CausalLM(AutoModelForCausalLM.from_pretrained(...))

The book pads rows on the right. A cache wants them padded on the left, since a sliding
window counts places and not tokens: `prefill` turns the prompts round.

Simplified: one device, text only, no encoder; a prompt that a group shares is read once
while sampling and anew for each row in training.

Shapes: B rows, T tokens, P prompts of n tokens, A vocabulary.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib import require


@dataclass
class Reading:
    """What `extend` goes on from: a cache of transformers, and where its rows stand."""

    cache: Any
    seen: Tensor  # (B, n + room) 1 where a token stands or will stand, 0 for padding
    places: Tensor  # (B,) where each row's next token will stand
    taken: int  # columns of `seen` that have been read


class CausalLM(nn.Module):
    """A causal language model of transformers: tokens (B, T) -> logits (B, T, A).

    The model is not copied. It is put into evaluation mode: with dropout, a policy would
    not find the log-probabilities again that it drew at. A token outside the vocabulary
    and a row longer than the context are refused.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not (hasattr(model, "base_model_prefix") and hasattr(model, "lm_head")):
            wanted = "a causal language model of transformers"
            require.refuse("model", type(model).__name__, wanted)
        self.model = model.eval()
        try:
            self.logits(model.lm_head.weight[:1])
        except AttributeError:
            wanted = "one whose head needs nothing of the trunk but what it makes"
            require.refuse("model", type(model).__name__, wanted)

    @property
    def context(self) -> int | None:
        """The longest row that it reads, where its config says so."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, A); what stands to the right of a token moves nothing."""
        return self.logits(self.hidden(tokens))

    def hidden(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, width): what it makes of each token and those before it."""
        self._check(tokens)
        return self._trunk(tokens, use_cache=False).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., A), by the model's own head.

        The model's `forward` runs with its trunk replaced by what the trunk has said, so
        that soft-caps (Gemma 2) and scalings (Cohere, Granite) stay its own business.
        """
        head = copy.copy(self.model)  # the same weights
        given = {self.model.base_model_prefix: _Given()}
        head._modules = {**self.model._modules, **given}
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        found = head(inputs_embeds=rows, use_cache=False).logits
        return found.reshape(*hidden.shape[:-1], -1)

    @torch.no_grad()
    def prefill(
        self, prompts: Tensor, lengths: Tensor, *, room: int, group: int = 1
    ) -> tuple[Tensor, Reading]:
        """Read each prompt once: logits (P · group, A) of what follows, and a Reading.

        prompts (P, n) are padded on the right, `lengths` (P,) say from where. Each
        begins `group` rows side by side, with `room` for that many tokens. No gradient.
        """
        require.prompts(prompts, lengths, room=room, group=group)
        self._check(prompts, room)
        n = prompts.shape[1]
        at = torch.arange(n + room, device=prompts.device) - n
        places = at + lengths.unsqueeze(1)  # (P, n + room), below 0 for padding
        first, seen = places[:, :n].clamp(min=0), (places >= 0).long()
        read = self._trunk(
            prompts.gather(1, first),
            attention_mask=seen[:, :n],
            position_ids=first,
            use_cache=True,
        )
        cache = getattr(read, "past_key_values", None)
        if cache is None:
            wanted = "one with a cache of keys and values"
            require.refuse("model", type(self.model).__name__, wanted)
        if group > 1:
            cache.batch_repeat_interleave(group)
        seen, lengths = (x.repeat_interleave(group, 0) for x in (seen, lengths))
        logits = self.logits(read.last_hidden_state[:, -1]).repeat_interleave(group, 0)
        return logits, Reading(cache, seen, lengths, n)

    @torch.no_grad()
    def extend(self, tokens: Tensor, cache: Reading) -> Tensor:
        """Read one more token (B,) of each row: logits (B, A) of what follows it."""
        require.tensor("tokens", tokens, cache.places.shape)
        self._check(tokens.unsqueeze(1))
        if cache.taken == cache.seen.shape[1]:
            require.refuse("tokens", "one more", "no more than there was room for")
        read = self._trunk(
            tokens.unsqueeze(1),
            attention_mask=cache.seen[:, : cache.taken + 1],
            position_ids=cache.places.unsqueeze(1),
            past_key_values=cache.cache,
            use_cache=True,
        )
        cache.taken += 1
        cache.places = cache.places + 1
        return self.logits(read.last_hidden_state[:, -1])

    def _trunk(self, tokens: Tensor, **how: Any) -> Any:
        return self.model.base_model(input_ids=tokens.long(), **how)

    def _check(self, tokens: Tensor, room: int = 0) -> None:
        """(B, T) of tokens that there are, and not too many with `room` for more."""
        require.tensor("tokens", tokens)
        if tokens.ndim != 2:
            require.refuse("tokens", f"shape {tuple(tokens.shape)}", "shape (B, T)")
        known = self.model.get_input_embeddings().num_embeddings
        require.integers("tokens", tokens, known)
        longest = tokens.shape[1] + room
        if longest == room or (self.context is not None and longest > self.context):
            wanted = f"1 … {self.context}, the context"
            got = f"{tokens.shape[1]} in a row" + f" and room for {room}" * (room > 0)
            require.refuse("tokens", got, wanted)


class _Given(nn.Module):
    """In place of a trunk: says what is put in as if it had made it."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> "_Said":
        return _Said(inputs_embeds)


class _Said:
    """The output of a trunk, as far as a head looks at it: the rest is None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state
