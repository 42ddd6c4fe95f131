"""Plausible mistakes in the exercises on sampler and learner; each check must refuse each."""

FOUR = """
def ratios(logps, sampler_logps, mask):
    return ({detached}).masked_fill(~mask, 0)


def token_truncate(logps, sampler_logps, mask, cap):
    weight = ratios(logps, sampler_logps, mask).exp()
    return weight.clamp({clamp}).masked_fill({behind}, 0)


def token_mask(logps, sampler_logps, mask, cap):
    weight = ratios(logps, sampler_logps, mask).exp()
    return weight.masked_fill((weight {above} cap) | ~mask, {instead})


def sequence_truncate(logps, sampler_logps, mask, cap):
    weight = ratios(logps, sampler_logps, mask).{whole}.exp()
    return weight.clamp(max=cap).expand(mask.shape).masked_fill(~mask, 0)


def sequence_mask(logps, sampler_logps, mask, cap):
    weight = ratios(logps, sampler_logps, mask).{whole}.exp()
    weight = weight.masked_fill(weight {above} cap, 0).expand(mask.shape)
    return weight.masked_fill(~mask, 0)
"""


def four(
    detached="logps.detach() - sampler_logps.detach()",
    clamp="max=cap",
    behind="~mask",
    above=">",
    instead="0",
    whole="sum(1, keepdim=True)",
):
    return FOUR.format(
        detached=detached,
        clamp=clamp,
        behind=behind,
        above=above,
        instead=instead,
        whole=whole,
    )


SIZE = """
def effective(weights):
    {effective}


def expected(m, length):
    return {expected}


def longest(m, share):
    length = 0
    while {goes_on}:
        length += 1
    return length
"""
EFFECTIVE = """if not weights.any():
        return 0.0
    scaled = weights / weights.max()
    return (scaled.sum() ** 2 / ({count} * scaled.square().sum())).item()"""
SHARE = EFFECTIVE.format(count="len(scaled)")
SQUARES = (
    """return (weights.sum() ** 2 / (len(weights) * weights.square().sum())).item()"""
)


def size(
    effective=SHARE,
    expected="m**-length",
    goes_on="expected(m, length + 1) >= share",
):
    return SIZE.format(effective=effective, expected=expected, goes_on=goes_on)


PREFIX = """
def prefix_weights(ratios, mask):
    return {product}


def exact_with_values():
    return {{"token": {token}, "prefix": {prefix}, "answer": {answer}}}
"""
PRODUCT = "ratios.masked_fill(~mask, 1).cumprod(1).masked_fill(~mask, 0)"


def prefix(product=PRODUCT, token=False, prefix=True, answer=True):
    return PREFIX.format(product=product, token=token, prefix=prefix, answer=answer)


TOLD = """
def kept(logits, p):
    ranked, place = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    first = {first}
    return torch.zeros_like(first).scatter(-1, place, first)


def reported(logits, p):
    return {reported}


def told(logits, keep):
    return {told}
"""
FIRST = "ranked.cumsum(-1) - ranked < p - 1e-12"
OVER_KEPT = "logits.masked_fill(~keep, -torch.inf).log_softmax(-1)"


def told(first=FIRST, reported="told(logits, kept(logits, p))", told=OVER_KEPT):
    return TOLD.format(first=first, reported=reported, told=told)


RUN = """
def dropping(logps, sampler_logps, mask):
    return {weights}


def experiment(weigh):
    runs = lab.stale_runs(
        words, seeds=range({seeds}), lag={lag}, weigh={weigh}, updates={updates}, lr=64.0
    )
    return runs{measure}


def compare(one, other):
    gaps = {gaps}
    return {said}
"""
WEIGHTS = (
    "off_policy.dropped(off_policy.importance_weights(logps, sampler_logps, mask))"
)


def run(
    weights=WEIGHTS,
    seeds=16,
    lag=8,
    weigh="weigh",
    updates=20,
    measure=".mean(1)",
    gaps="one - other",
    said="gaps.mean().item(), int((gaps > 0).sum())",
):
    return RUN.format(
        weights=weights,
        seeds=seeds,
        lag=lag,
        weigh=weigh,
        updates=updates,
        measure=measure,
        gaps=gaps,
        said=said,
    )


WRONG = {
    "exS_1": [
        four(detached="sampler_logps.detach() - logps.detach()"),  # μ / π
        four(detached="logps - sampler_logps"),  # a gradient flows
        four(clamp="1 / cap, cap"),  # truncated from below, too
        four(behind="mask & False"),  # 1 behind the mask
        four(above=">="),
        four(instead="cap"),  # truncated where it should be dropped
        four(whole="mean(1, keepdim=True)"),  # over the padding, too: a root
        four(whole="amax(1, keepdim=True)"),
    ],
    "exS_2": [
        size(effective=SQUARES),  # overflows
        size(effective=EFFECTIVE.format(count="1")),  # a number, no share
        size(effective="return 1 / weights.square().sum().item()"),
        size(expected="1 / (m * length)"),
        size(expected="m ** (-length / 2)"),
        size(goes_on="expected(m, length + 1) > share"),
        size(goes_on="expected(m, length) >= share"),
    ],
    "exS_3": [
        prefix(product="ratios.masked_fill(~mask, 0)"),  # the token's own
        prefix(product="ratios.masked_fill(~mask, 1).cumprod(1)"),
        prefix(
            product="ratios.cumprod(1).div(ratios).masked_fill(~mask, 0)"
        ),  # before it
        prefix(
            product="ratios.masked_fill(~mask, 1).flip(1).cumprod(1).flip(1) * mask"
        ),
        prefix(
            product="ratios.masked_fill(~mask, 1).prod(1, keepdim=True).expand_as(ratios) * mask"
        ),
        prefix(token=True),
        prefix(prefix=False),
        prefix(answer=False),
    ],
    "exS_4": [
        told(first="ranked.cumsum(-1) <= p + 1e-12"),  # stays below p
        told(first="ranked >= 1 - p"),
        told(reported="logits.log_softmax(-1)"),  # not normalised over what is kept
        told(
            reported="logits.log_softmax(-1).masked_fill(~kept(logits, p), -torch.inf)"
        ),
        told(told="logits.log_softmax(-1)"),
        told(
            told="logits.masked_fill(~kept(logits, 0.8), -torch.inf).log_softmax(-1)"
        ),  # the learner's own tokens
    ],
    "exS_5": [
        run(weights="torch.ones_like(logps)"),  # nothing is dropped
        run(weights="torch.zeros_like(logps)"),  # everything is
        run(
            weights="off_policy.dropped((logps - sampler_logps).exp() / 2) * 2"
        ),  # 1 is at the edge
        run(
            weights="(logps - sampler_logps).exp() * ((logps - sampler_logps).abs() < 1)"
        ),  # carries a gradient
        run(seeds=8),
        run(lag=0),
        run(weigh="lab.ones"),
        run(updates=5),
        run(measure=""),  # a curve a seed
        run(measure=".mean(0)"),  # a curve, no seeds
        run(gaps="other - one"),
        run(said="gaps.sum().item(), int((gaps > 0).sum())"),
    ],
}
