"""Plausible mistakes in the exercises of chapter 3, by the exercise they belong to."""

WINS = """
def wins(first, second, uniform, temperature, error):
    p = torch.sigmoid({gap})
    return uniform < {p}
"""
GAP = "(first - second) / temperature"
EITHER = "(1 - error) * p + error * (1 - p)"

PAID = """
def paid(raw, fallen):
    return {found}
"""

STEP = """
def step(tokens, actions, judge):
    {place}
    ended = actions == 1
    return after, {reward}, ended
"""
PLACE = (
    "after = tokens.scatter(1, (tokens != 0).sum(1, keepdim=True), actions[:, None])"
)

CREDITS = """
def credits(scores, logps, ref_logps, mask, beta, group):
    ratio = {ratio}
    penalised = (scores {sign} beta * ratio).reshape({shape})
    others = {others}
    return (penalised - others).reshape(-1, 1) {spread}
"""
RIGHT = {
    "ratio": "(logps - ref_logps).masked_fill(~mask, 0).sum(1)",
    "sign": "-",
    "shape": "-1, group",
    "others": "(penalised.sum(1, keepdim=True) - penalised) / (group - 1)",
    "spread": "* mask",
}


def credits(**other: str) -> str:
    """The credit of an answer, with one thing wrong."""
    return CREDITS.format(**{**RIGHT, **other})


BETTER = """
def experiment():
    return {{beta: {{"gold": [0.0] * 200, "kl": {kl}}} for beta in {betas}}}

def better(one, other, generator):
    one, other = (torch.tensor(exam["gold"]).double() for exam in ({order}))
    apart = one - other
    which = torch.randint(len(apart), (2_000, {size}), generator=generator)
    means = {means}
    low, high = means.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return apart.mean().item(), low, high
"""
TUNED = {
    "kl": "1 - beta",
    "betas": "(0.0, 0.1, 0.5)",
    "order": "one, other",
    "size": "len(apart)",
    "means": "apart[which].mean(1)",
}


def better(**other: str) -> str:
    """The experiment, with one thing wrong."""
    return BETTER.format(**{**TUNED, **other})


WRONG = {
    "ex3_2": [
        # the temperature multiplies
        WINS.format(gap="(first - second) * temperature", p=EITHER),
        # the second film
        WINS.format(gap="(second - first) / temperature", p=EITHER),
        # an error makes nobody win
        WINS.format(gap=GAP, p="(1 - error) * p"),
        # an error is a coin flip
        WINS.format(gap=GAP, p="(1 - error) * p + error / 2"),
        # never errs
        WINS.format(gap=GAP, p="p"),
    ],
    "ex3_3": [
        # as it was reported
        PAID.format(found="(raw - raw.mean()) / raw.std()"),
        # the right zero, no unit
        PAID.format(found="raw - raw[fallen].mean()"),
        # the fallen are 0, but the constant still rides on the upright
        PAID.format(found="(raw / raw[~fallen].mean()).masked_fill(fallen, 0)"),
        # the unit of an upright frame before the zero was taken off
        PAID.format(found="(raw - raw[fallen].mean()) / raw[~fallen].mean()"),
    ],
    "ex3_4": [
        # the same column for every row
        STEP.format(
            place="after = tokens.clone(); after[:, (tokens != 0).sum(1).max()] = actions",
            reward="judge(after) * ended",
        ),
        # writes into the record
        STEP.format(
            place="after = tokens.scatter_(1, (tokens != 0).sum(1, keepdim=True),"
            " actions[:, None])",
            reward="judge(after) * ended",
        ),
        # over the last token
        STEP.format(
            place=PLACE.replace("keepdim=True)", "keepdim=True) - 1"),
            reward="judge(after) * ended",
        ),
        # paid at every token
        STEP.format(place=PLACE, reward="judge(after)"),
        # the judge does not see the end
        STEP.format(place=PLACE, reward="judge(tokens) * ended"),
    ],
    "ex3_5": [
        # the policy is paid to leave the reference
        credits(sign="+"),
        # the reference over the policy
        credits(ratio="(ref_logps - logps).masked_fill(~mask, 0).sum(1)"),
        # the mean over tokens
        credits(ratio="(logps - ref_logps).masked_fill(~mask, 0).sum(1) / mask.sum(1)"),
        # also what is outside the answer
        credits(ratio="(logps - ref_logps).sum(1)"),
        # compared with a mean that holds the answer itself
        credits(others="penalised.mean(1, keepdim=True)"),
        # compared with the answers to all prompts
        credits(others="(penalised.sum() - penalised) / (penalised.numel() - 1)"),
        # groups that are not side by side
        credits(shape="group, -1", others="penalised.flip(0)"),
        # credit for padding
        credits(spread=".expand(mask.shape)"),
    ],
    "ex3_6": [
        # beta does not arrive
        better(kl="1.0"),
        # no run without the penalty
        better(betas="(0.1, 0.2, 0.5)"),
        # the second exam less the first
        better(order="other, one"),
        # draws of a tenth of the requests
        better(size="len(apart) // 10 + 1"),
        # an interval for one request, not for the mean
        better(means="apart[which[:, 0]]"),
        # not request by request
        better(means="one[which].mean(1) - other[which.flip(0)].mean(1)"),
    ],
}
