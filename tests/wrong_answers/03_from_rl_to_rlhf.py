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
}
