"""A policy meets a prompt: `complete` writes on, and into a Rollout.

The twin of `worlds.environment.play` for language. A state is a token with all those
before it, an action the token that follows: what `step` was to a world, appending a
token is to a sentence.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import require
from lib.ops import device_of
from lib.rollout import Rollout


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Logits over temperature, with -inf for what may not be drawn: (..., A).

    First `top_k` keeps the k best, and all that tie with the last of them (Fan et al.
    2018); then `top_p` keeps, of what is left, the fewest whose probability reaches p,
    a tie going to the first (nucleus sampling; Holtzman et al. 2020).
    """
    require.tensor("logits", logits)
    _check_filter(temperature, top_k, top_p)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    if top_p is not None and top_p < 1:
        ranked, index = logits.double().sort(stable=True, descending=True)
        probabilities = ranked.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # what likelier ones hold
        reached = before >= top_p * (1 - 8 * torch.finfo(logits.dtype).eps)
        dropped = torch.zeros_like(reached).scatter(-1, index, reached)
        logits = logits.masked_fill(dropped, -torch.inf)
    return logits


@torch.no_grad()
def complete(
    policy: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    end: int,
    max_tokens: int,
    generator: torch.Generator,
    group: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    pad: int = 0,
    of: slice = slice(None),
) -> Rollout:
    """Each prompt continued `group` times, until `end` is drawn or `max_tokens` are.

    The record is that of a played episode: a state is a token with all those before it,
    an action the token after it, and the mask is True where that one was drawn, `end`
    included. Row p · group + g holds prompt p, its g-th completion, then `pad`. Rewards
    are 0 until someone judges. `logps` are the policy's at this `temperature`, before
    top-k and top-p: what `token_logps` finds again in training.

    A policy with `prefill` and `extend` reads each token once; any other causal one
    reads its rows anew for every token. Greedy decoding is `top_k=1`. Of some prompts
    only (`of`): the same answers as if all had been asked.
    """
    _check_filter(temperature, top_k, top_p)
    require.count("max_tokens", max_tokens)
    require.count("group", group)
    padded, lengths = _side_by_side(prompts[of], pad, device_of(policy))  # (P, n), (P,)
    reader = policy if hasattr(policy, "prefill") else _Rereading(policy)
    logits, cache = reader.prefill(padded, lengths, room=max_tokens, group=group)
    _check_token("end", end, logits)
    _check_token("pad", pad, logits)
    size = (max_tokens, len(prompts), group)
    like = {"dtype": torch.float64, "device": generator.device}
    luck = torch.rand(size, generator=generator, **like)[:, of].flatten(1).unsqueeze(-1)
    luck = luck.to(logits.device)  # (t, B, 1)
    draw = partial(_draw, temperature=temperature, top_k=top_k, top_p=top_p)
    ended = torch.zeros_like(logits[:, 0], dtype=torch.bool)  # (B,)
    tokens, logps = [], []
    for uniform in luck:
        if tokens:
            logits = reader.extend(tokens[-1], cache)  # (B, A)
        token, logp = draw(logits, uniform)
        tokens.append(token)
        logps.append(logp)
        ended |= token == end
        if ended.all():
            break
    begun = (x.repeat_interleave(group, 0) for x in (padded, lengths))
    drawn = (torch.stack(each, 1) for each in (tokens, logps))  # (B, t)
    return _written(*begun, *drawn, end, pad)


def _draw(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> tuple[Tensor, Tensor]:
    """(B, A), (B, 1) -> the token where the cumulative distribution passes `uniform`
    (as in `ops.sample`), and its log-probability before top-k and top-p: (B,) each.
    """
    everything = torch.softmax(logits.double() / temperature, 1)  # (B, A)
    allowed = everything
    if top_k is not None or top_p is not None:
        kept = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        allowed = everything.masked_fill(kept == -torch.inf, 0)
    cumulative = allowed.cumsum(1)
    total = cumulative[:, -1:]
    if total.isnan().any():
        row = total.isnan().nonzero()[0, 0]
        wanted = "at least one finite logit a row, no NaN, no +inf"
        require.refuse("logits", f"no distribution in row {row}", wanted)
    token = torch.searchsorted(cumulative, uniform * total, right=True)  # (B, 1)
    logp = everything.gather(1, token).log().to(logits.dtype)
    return token.squeeze(1), logp.squeeze(1)


def _written(
    prompts: Tensor, lengths: Tensor, drawn: Tensor, logps: Tensor, end: int, pad: int
) -> Rollout:
    """What was drawn (B, t), up to its end, moved to where its prompt (B, n) ends."""
    ends = drawn == end
    mask = ends.cumsum(1) - ends.long() == 0  # up to the first end, and that one too
    place = torch.arange(drawn.shape[1], device=drawn.device) + lengths.unsqueeze(-1)
    last = lengths + mask.sum(1) - 1  # (B,) where the row's last token stands
    width = last.max() + 1
    blank = F.pad(prompts, (0, drawn.shape[1]), value=pad)
    tokens = blank.scatter(1, place, drawn.masked_fill(~mask, pad))[:, :width]

    def placed(x: Tensor) -> Tensor:
        return x.new_zeros(blank.shape).scatter(1, place, x)[:, 1:width]

    logps = placed(logps.masked_fill(~mask, 0))
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=logps,
        rewards=torch.zeros_like(logps),
        mask=placed(mask),
        last_states=tokens.gather(1, last.unsqueeze(-1)).squeeze(-1),
        terminated=ends.any(1),
    )


class _Rereading:
    """A policy without a cache: every row is read from its beginning, every time."""

    def __init__(self, policy: nn.Module) -> None:
        self.policy = policy

    def prefill(
        self, prompts: Tensor, lengths: Tensor, *, room: int, group: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = F.pad(prompts, (0, room)).repeat_interleave(group, 0)
        cache = {"rows": rows, "lengths": lengths.repeat_interleave(group)}
        return self._next(cache), cache

    def extend(self, tokens: Tensor, cache: dict[str, Tensor]) -> Tensor:
        cache["rows"].scatter_(1, cache["lengths"].unsqueeze(-1), tokens.unsqueeze(-1))
        cache["lengths"] += 1
        return self._next(cache)

    def _next(self, cache: dict[str, Tensor]) -> Tensor:
        """(B, A): what follows the last token of each row."""
        lengths = cache["lengths"]
        logits = self.policy(cache["rows"][:, : lengths.max()])  # (B, T, A)
        return logits[torch.arange(len(lengths), device=lengths.device), lengths - 1]


def _side_by_side(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Prompts padded on the right to one length, (P, n), and their lengths, (P,)."""
    if len(prompts) == 0:
        require.refuse("prompts", "none", "at least one")
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            require.refuse("prompts", f"text as prompt {number}", "lists of token ids")
        if len(prompt) == 0:
            require.refuse("prompts", f"no token in prompt {number}", "at least one")
    rows = [torch.as_tensor(prompt, device=device) for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad), lengths


def _check_token(name: str, token: int, logits: Tensor) -> None:
    require.count(name, token, least=0)
    require.integers(name, torch.tensor(token, device=logits.device), logits.shape[-1])


def _check_filter(temperature: float, top_k: int | None, top_p: float | None) -> None:
    require.positive("temperature", temperature)
    if top_k is not None:
        require.count("top_k", top_k)
    if top_p is not None:
        require.number("top_p", top_p)
        if not 0 < top_p <= 1:
            require.refuse("top_p", top_p, "a number in (0, 1]")
