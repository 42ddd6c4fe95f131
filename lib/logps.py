"""Log-probabilities of answers, with a prompt that several share read only once.

`token_logps(policy(states), actions)` reads every row from its beginning and scores
every place, also those that the mask drops. That is done for any causal model. For the
book's own `Transformer` only answers are scored; of the `group` rows that begin alike
the beginning is read once, since causally nothing in it depends on what follows; and
the last block goes on with the answers alone, since nobody asks what it makes of a
prompt. The numbers are the same but for rounding.

Shapes: P prompts of n tokens, G answers a prompt, B = P · G rows, t tokens an answer,
M tokens in all answers, N tokens that are read, H heads of size D.
"""

import torch
from torch import Tensor, nn

from lib import require
from lib.models.attention import attention, causal
from lib.models.transformer import Attend, Transformer
from lib.ops import device_of, token_logps
from lib.rollout import Rollout


def action_logps(
    policy: nn.Module,
    rollout: Rollout,
    *,
    temperature: float = 1.0,
    group: int = 1,
) -> Tensor:
    """log π(action | state) of each action that the mask holds, 0 elsewhere: (B, T).

    Rows p · group … (p + 1) · group - 1 must share a prompt, as `complete` writes them.
    No row's mask is empty; where a group shares a prompt, each is one stretch. (By itself
    a row may hold several answers, of a conversation.) Nats; with gradient. Any
    module of tokens (B, T) -> logits (B, T, A) will do. `temperature` is the one that
    the actions were drawn at.
    """
    require.every_row_true(rollout.mask)
    rollout = rollout.to(device_of(policy))
    if not isinstance(policy, Transformer):
        return _of_any(policy, rollout, temperature)
    begins = rollout.mask.long().argmax(1)  # (B,) the state of the first action
    at = torch.arange(1, rollout.mask.shape[1] + 1, device=begins.device)
    ends = (rollout.mask * at).amax(1)  # (B,) states of each row that are read
    _check(policy, rollout, begins, ends, group)
    if group == 1 or not begins.any():  # nothing is shared before the first action
        hidden = _one_by_one(policy, rollout, ends)
    else:
        hidden = _prompts_once(policy, rollout, begins, group)
    return _scored(policy, hidden, rollout, temperature)


def _of_any(policy: nn.Module, rollout: Rollout, temperature: float) -> Tensor:
    """Of a policy that is no Transformer of ours: (B, T).

    One with `hidden` and `logits` makes logits of the answers alone, which matters where
    the vocabulary is large.
    """
    if hasattr(policy, "hidden") and hasattr(policy, "logits"):
        hidden = policy.hidden(rollout.states)[rollout.mask]  # (M, width)
        return _scored(policy, hidden, rollout, temperature)
    logits = policy(rollout.states)  # (B, T, A)
    logps = token_logps(logits, rollout.actions, temperature=temperature)
    return logps.masked_fill(~rollout.mask, 0)


def _scored(
    policy: nn.Module, hidden: Tensor, rollout: Rollout, temperature: float
) -> Tensor:
    """log π of the actions, from what the policy made of their states (M, width)."""
    logits = policy.logits(hidden)  # (M, A)
    actions = rollout.actions[rollout.mask]
    logps = token_logps(logits, actions, temperature=temperature)  # (M,)
    return logps.new_zeros(rollout.mask.shape).masked_scatter(rollout.mask, logps)


def context_of(model: nn.Module) -> int | None:
    """The longest row that a model reads, where it says so in `.context`."""
    return getattr(model, "context", None)


def _one_by_one(policy: Transformer, rollout: Rollout, ends: Tensor) -> Tensor:
    """(M, width): what the policy makes of the states in which it acted."""
    at = torch.arange(int(ends.max()), device=ends.device)
    mask = rollout.mask[:, : len(at)]
    states = rollout.states[:, : len(at)].where(at < ends.unsqueeze(1), 0)

    def asked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal(q, k, v)[mask]

    return _read(policy, policy.embed(states), at, causal, asked, mask)


def _prompts_once(
    policy: Transformer, rollout: Rollout, begins: Tensor, group: int
) -> Tensor:
    """The same, each group's prompt read once.

    All tokens go through the blocks in one list, the prompts' first. Only the attention
    knows which of them belong together.
    """
    prompts = rollout.states[::group, : int(begins.max())]  # (P, n): all but the last
    at = torch.arange(prompts.shape[1], device=begins.device)
    prompts = prompts.where(at < begins[::group].unsqueeze(1), 0)
    steps = torch.arange(int(rollout.lengths.max()), device=begins.device)
    chosen = steps < rollout.lengths.unsqueeze(1)  # (B, t)
    places = begins.unsqueeze(1) + steps * chosen  # (B, t)
    own = rollout.states.gather(1, places)  # (B, t): the states that were acted in
    x = [policy.embed(tokens).flatten(0, 1) for tokens in (prompts, own)]
    at = torch.cat((at.repeat(len(prompts)), places.flatten()))  # (N,)
    attend, answers = _attention(prompts.shape, begins, own.shape)
    chosen = chosen.flatten().nonzero().squeeze(1)  # (M,)

    def asked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return answers(q, k, v)[chosen]

    return _read(policy, torch.cat(x), at, attend, asked, prompts.numel() + chosen)


def _read(
    policy: Transformer,
    x: Tensor,
    places: Tensor,
    attend: Attend,
    asked: Attend,
    index: Tensor,
) -> Tensor:
    """`policy.read(x, places, attend)[index]`: (M, width), the last block for these only.

    `asked` is `attend` for the tokens of `index`.
    """
    cos, sin = policy.cos[places], policy.sin[places]
    for block in policy.blocks:
        q, k, v = block.heads_of(x, cos, sin)
        if block is policy.blocks[-1]:
            attend, x = asked, x[index]
        seen = attend(q, k, v)  # (..., H, D)
        x = block.think(x + block.out(seen.flatten(-2)))
    return policy.norm(x)


def _attention(
    before: torch.Size, begins: Tensor, own: torch.Size
) -> tuple[Attend, Attend]:
    """Answers look at their own prompt and at themselves, prompts at themselves.

    For all tokens, (N, H, D), and for the answers' only, (B · t, H, D).
    """
    here = torch.arange(before[1], device=begins.device) < begins.unsqueeze(1)  # (B, n)
    here = here.unsqueeze(1).expand(-1, own[1], -1)
    back = torch.ones(own[1], own[1], dtype=torch.bool, device=begins.device).tril()
    may_see = torch.cat((here, back.expand(own[0], -1, -1)), 2).unsqueeze(1)
    sizes, group = (before.numel(), own.numel()), own[0] // before[0]

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        first, then = x.split(sizes)
        return first.unflatten(0, before), then.unflatten(0, own)

    def seen(q: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        k, v = (torch.cat((x.repeat_interleave(group, 0), y), 1) for x, y in pairs)
        return attention(q, k, v, may_see=may_see).flatten(0, 1)

    def everyone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (parts(x) for x in (q, k, v))
        return torch.cat((causal(q[0], k[0], v[0]).flatten(0, 1), seen(q[1], k, v)))

    def answers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return seen(parts(q)[1], parts(k), parts(v))

    return everyone, answers


def _check(
    policy: Transformer, rollout: Rollout, begins: Tensor, ends: Tensor, group: int
) -> None:
    """A row that fits the context; in a group one prompt, and one stretch a row."""
    require.count("group", group)
    if len(rollout) % group:
        require.refuse("group", group, f"a divisor of {len(rollout)} rows")
    longest, context = int(ends.max()), policy.config.context
    if longest > context:
        require.refuse("rollout", f"a row of {longest}", f"at most {context} tokens")
    if group == 1:
        return
    if (ends - begins != rollout.lengths).any():
        require.refuse("rollout", "a mask with a hole", "one stretch a row")
    prompt = torch.arange(int(begins.max()) + 1, device=begins.device)
    prompt = prompt <= begins.unsqueeze(1)  # (B, n + 1)
    tokens = rollout.states[:, : prompt.shape[1]].masked_fill(~prompt, -1)
    if (tokens.unflatten(0, (-1, group)) != tokens[::group].unsqueeze(1)).any():
        require.refuse("rollout", "two prompts in a group", f"{group} answers to each")


# --- one number for each answer -------------------------------------------------------


def answer_logps(
    policy: nn.Module, answers: Rollout, *, group: int = 1, per_token: bool = False
) -> Tensor:
    """log π(answer | prompt) of each row, or its mean per token: (N,), with gradient.

    `group` neighbouring rows share a prompt, which is then read once.
    """
    total = action_logps(policy, answers, group=group).sum(1)
    return total / answers.lengths if per_token else total
