"""Log-probabilities of answers, with a prompt that several share read only once.

`token_logps(policy(states), actions)` reads every row from its beginning and scores
every place, also those that the mask drops. Here only answers are scored, and of the
`group` rows that begin alike the beginning is read once: causally nothing in it depends
on what follows. The numbers are the same but for rounding.

Shapes: P prompts of n tokens, G answers a prompt, B = P · G rows, t tokens an answer,
H heads of size D.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lib import require
from lib.models.attention import causal
from lib.models.transformer import Attend, Transformer
from lib.ops import token_logps
from lib.rollout import Rollout


def action_logps(
    policy: Transformer,
    rollout: Rollout,
    *,
    group: int = 1,
    temperature: float = 1.0,
) -> Tensor:
    """log π(action | state) of each action that the mask holds, 0 elsewhere: (B, T).

    Rows p · group … (p + 1) · group - 1 must share a prompt, as `complete` writes them.
    The mask of each row is one stretch that is not empty. Nats; with gradient.
    """
    require.positive("temperature", temperature)
    require.every_row_true(rollout.mask)
    begins = rollout.mask.long().argmax(1)  # (B,) the state of the first action
    _check(policy, rollout, begins, group)
    steps = torch.arange(int(rollout.lengths.max()), device=begins.device)
    chosen = steps < rollout.lengths.unsqueeze(1)  # (B, t)
    places = begins.unsqueeze(1) + steps * chosen  # (B, t)
    prompts = rollout.states[::group, : int(begins.max())]  # (P, n): all but the last
    own = rollout.states.gather(1, places)  # (B, t): the states that were acted in
    hidden = _read(policy, prompts, begins, own, places)  # (B, t, width)
    logits = policy.logits(hidden[chosen]).unsqueeze(0)  # (1, M, A)
    actions = rollout.actions[rollout.mask].unsqueeze(0)
    logps = token_logps(logits, actions, temperature=temperature).squeeze(0)  # (M,)
    return logps.new_zeros(rollout.mask.shape).masked_scatter(rollout.mask, logps)


def _read(
    policy: Transformer, prompts: Tensor, begins: Tensor, own: Tensor, places: Tensor
) -> Tensor:
    """(B, t, width): what the policy makes of the states in which it acted.

    All tokens go through the blocks in one list, the prompts' first. Only `attend`
    knows which of them belong together.
    """
    n = prompts.shape[1]
    if n == 0:
        return policy.read(policy.embed(own), places, causal)
    x = torch.cat(
        (policy.embed(prompts).flatten(0, 1), policy.embed(own).flatten(0, 1))
    )
    at = torch.arange(n, device=places.device).expand(prompts.shape)
    at = torch.cat((at.flatten(), places.flatten()))
    hidden = policy.read(x, at, _attend(prompts.shape, begins, own.shape))
    return hidden[prompts.numel() :].unflatten(0, own.shape)


def _attend(before: torch.Size, begins: Tensor, own: torch.Size) -> Attend:
    """Answers look at their own prompt and at themselves, prompts at themselves."""
    count, n = before
    here = torch.arange(n, device=begins.device) < begins.unsqueeze(1)  # (B, n)
    here = here.unsqueeze(1).expand(-1, own[1], -1)
    back = torch.ones(own[1], own[1], dtype=torch.bool, device=begins.device).tril()
    may_see = torch.cat((here, back.expand(own[0], -1, -1)), 2).unsqueeze(1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first = [x[: count * n].unflatten(0, before) for x in (q, k, v)]
        q, k, v = (x[count * n :].unflatten(0, own) for x in (q, k, v))  # (B, t, H, D)
        group = own[0] // count
        k, v = (
            torch.cat((x.repeat_interleave(group, 0), y), 1)
            for x, y in zip(first[1:], (k, v))
        )
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=may_see)
        return torch.cat(
            (causal(*first).flatten(0, 1), seen.transpose(1, 2).flatten(0, 1))
        )

    return attend


def _check(policy: Transformer, rollout: Rollout, begins: Tensor, group: int) -> None:
    """One prompt a group, one stretch a row, and a row that fits the context."""
    require.count("group", group)
    if len(rollout) % group:
        require.refuse("group", group, f"a divisor of {len(rollout)} rows")
    longest, context = int((begins + rollout.lengths).max()), policy.config.context
    if longest > context:
        require.refuse("rollout", f"a row of {longest}", f"at most {context} tokens")
    inside = torch.arange(rollout.mask.shape[1], device=begins.device)
    inside = (inside - begins.unsqueeze(1)) < rollout.lengths.unsqueeze(1)
    if not inside[rollout.mask].all():
        require.refuse("rollout", "a mask with a hole", "one stretch a row")
    prompt = torch.arange(int(begins.max()) + 1, device=begins.device)
    prompt = prompt <= begins.unsqueeze(1)  # (B, n + 1)
    tokens = rollout.states[:, : prompt.shape[1]].masked_fill(~prompt, -1)
    if (tokens.unflatten(0, (-1, group)) != tokens[::group].unsqueeze(1)).any():
        require.refuse("rollout", "two prompts in a group", f"{group} answers to each")
