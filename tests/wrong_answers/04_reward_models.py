"""Plausible mistakes in the exercises of chapter 4, by the exercise they belong to."""

PLACKETT = """
def plackett_luce(scores):
    {body}
"""

LAST = """
def at_last(per_token, mask):
    {body}
"""

REPORT = """
def report(model, chosen, rejected, room):
    pairs = [(c[:room], r[:room]) for c, r in zip(chosen, rejected)]
    kept = {kept}
    {empty}
    right = sum(model(c) {than} model(r) for c, r in kept)
    return right / {of}, len(pairs) - len(kept)
"""
DIFFERENT = "[(c, r) for c, r in pairs if c != r]"
REFUSE = "if not kept: raise ValueError(f'room: got {room}, wanted more')"

CEILING = """
def ceiling(p):
    return {best}, {each_other}
"""

KNOWING = """
def knowing(annotator, one, two):
    gap = {gap}
    return {chance}
"""
GAP = "annotator.weights.score(one) - annotator.weights.score(two)"
LOOKING = "(1 + math.tanh(gap / annotator.temperature / 2)) / 2"
WHOLE = f"(1 - annotator.inattention) * {LOOKING} + annotator.inattention / 2"

WRONG = {
    "ex4_2": [
        # the softmax over all, at every place
        PLACKETT.format(body="return -scores.log_softmax(1).sum(1).mean()"),
        # worst first
        PLACKETT.format(body="return (scores.logcumsumexp(1) - scores).sum(1).mean()"),
        # the mean over places, too
        PLACKETT.format(
            body="return (scores.flip(1).logcumsumexp(1).flip(1) - scores).mean()"
        ),
        # overflows
        PLACKETT.format(
            body="return (scores.exp().flip(1).cumsum(1).flip(1).log() - scores)"
            ".sum(1).mean()"
        ),
    ],
    "ex4_3": [
        # as it was reported
        LAST.format(body="return per_token[:, -1]"),
        # how many tokens the answer has, not where it ends
        LAST.format(body="return per_token.gather(1, mask.sum(1)[:, None] - 1)[:, 0]"),
        # the first token of the answer
        LAST.format(
            body="return per_token.gather(1, mask.int().argmax(1)[:, None])[:, 0]"
        ),
        # the mean over the answer, NaN times zero
        LAST.format(body="return (per_token * mask).sum(1) / mask.sum(1)"),
    ],
    "ex4_4": [
        # as it was reported: ties are right
        REPORT.format(kept=DIFFERENT, empty=REFUSE, than=">=", of="len(kept)"),
        # identical pairs stay
        REPORT.format(kept="pairs", empty=REFUSE, than=">", of="len(kept)"),
        # left out above the line, not below it
        REPORT.format(kept=DIFFERENT, empty=REFUSE, than=">", of="len(pairs)"),
        # 0 of 0
        REPORT.format(kept=DIFFERENT, empty="pass", than=">", of="max(1, len(kept))"),
        # the signs swapped
        REPORT.format(kept=DIFFERENT, empty=REFUSE, than="<", of="len(kept)"),
    ],
    "ex4_5": [
        # the probability of the first
        CEILING.format(
            best="p.mean().item()", each_other="(p**2 + (1 - p)**2).mean().item()"
        ),
        # both say first
        CEILING.format(
            best="torch.maximum(p, 1 - p).mean().item()",
            each_other="(p**2).mean().item()",
        ),
        # the mean before the maximum
        CEILING.format(
            best="max(p.mean(), 1 - p.mean()).item()",
            each_other="(p**2 + (1 - p)**2).mean().item()",
        ),
    ],
    "ex4_6": [
        # pets are still believed
        KNOWING.format(
            gap="annotator.weights.score(believed(one))"
            " - annotator.weights.score(believed(two))",
            chance=WHOLE,
        ),
        # always looks
        KNOWING.format(gap=GAP, chance=LOOKING),
        # gold's weights, not their own
        KNOWING.format(gap="Weights().score(one) - Weights().score(two)", chance=WHOLE),
        # a temperature of 1
        KNOWING.format(
            gap=GAP, chance=WHOLE.replace("gap / annotator.temperature", "gap")
        ),
        # half of the inattention is lost
        KNOWING.format(gap=GAP, chance=f"(1 - annotator.inattention) * {LOOKING}"),
    ],
}
