"""Plausible mistakes in the exercises of chapter 5, by the exercise they belong to."""

BUY = """
def buy(budget, ref_logps, rewards):
    {refuse}
    low, high = 1e-3, 1e3
    for _ in range(100):
        beta = (low * high) ** 0.5
        logps = kl.optimal_policy(ref_logps, rewards, beta=beta)
        if {far}:
            {move}
    return {found}
"""
REFUSE = "assert True\n    if budget <= 0: raise ValueError('budget: too small')"
FAR = "kl.exact_kl(logps, ref_logps) > budget"
MOVE = "low = beta\n        else:\n            high = beta"
FOUND = "kl.optimal_policy(ref_logps, rewards, beta=high)"

CREDIT = """
def credit(score, d, beta):
    {paid}
    {add}
    return {found}
"""
VERDICT = """
def verdict(kls, target):
    last = [each / target - 1 for each in {part}]
    above, below = {above}, {below}
    if {settled}:
        return "settled"
    return "swings" if {swings} else "late"
"""
PARTS = {
    "part": "kls[-(len(kls) // 4):]",
    "above": "max(last) > 0.1",
    "below": "min(last) < -0.1",
    "settled": "not above and not below",
    "swings": "above and below",
}
SETTING = """
def setting(rewards):
    spread = (rewards.max() - rewards.min()).item()
    return {beta}, {horizon}
"""

WRONG = {
    "ex5_2": [
        # nothing is refused
        BUY.format(refuse="pass", far=FAR, move=MOVE, found=FOUND),
        # the wrong end moves: a far policy needs a higher price
        BUY.format(
            refuse=REFUSE,
            far=FAR,
            move="high = beta\n        else:\n            low = beta",
            found=FOUND,
        ),
        # the KL the other way round
        BUY.format(
            refuse=REFUSE,
            far="kl.exact_kl(ref_logps, logps) > budget",
            move=MOVE,
            found=FOUND,
        ),
        # the budget taken for the price
        "def buy(budget, ref_logps, rewards):\n"
        "    return kl.optimal_policy(ref_logps, rewards, beta=budget)",
        # probabilities, not their logarithms
        BUY.format(refuse=REFUSE, far=FAR, move=MOVE, found=FOUND + ".exp()"),
        # mixes with the best answer: the right KL, less reward
        """
def buy(budget, ref_logps, rewards):
    if budget <= 0:
        raise ValueError("budget: too small")
    best, low, high = torch.eye(12)[rewards.argmax()].double(), 0.0, 1.0
    for _ in range(100):
        share = (low + high) / 2
        logps = ((1 - share) * ref_logps.exp() + share * best).log()
        far = kl.exact_kl(logps, ref_logps) > budget
        low, high = (low, share) if far else (share, high)
    return logps
""",
    ],
    "ex5_3": [
        # as it was reported
        CREDIT.format(
            paid="paid = -beta * d", add="paid[0] += score", found="paid.cumsum(0)"
        ),
        # to go, but the score on the first token
        CREDIT.format(
            paid="paid = -beta * d",
            add="paid[0] += score",
            found="paid.flip(0).cumsum(0).flip(0)",
        ),
        # the score on the last token, but credited with the past
        CREDIT.format(
            paid="paid = -beta * d", add="paid[-1] += score", found="paid.cumsum(0)"
        ),
        # each token for itself
        CREDIT.format(paid="paid = -beta * d", add="paid[-1] += score", found="paid"),
        # leaving is paid
        CREDIT.format(
            paid="paid = beta * d",
            add="paid[-1] += score",
            found="paid.flip(0).cumsum(0).flip(0)",
        ),
        # the whole answer's credit for every token
        CREDIT.format(
            paid="paid = -beta * d",
            add="paid[-1] += score",
            found="paid.sum().expand(len(d))",
        ),
        # in place
        CREDIT.format(
            paid="d *= -beta",
            add="d[-1] += score",
            found="d.flip(0).cumsum(0).flip(0)",
        ),
    ],
    "ex5_4": [
        # the whole run is judged
        VERDICT.format(**{**PARTS, "part": "kls"}),
        # the first quarter
        VERDICT.format(**{**PARTS, "part": "kls[:len(kls) // 4]"}),
        # the mean of the last quarter
        VERDICT.format(**{**PARTS, "settled": "abs(sum(last) / len(last)) <= 0.1"}),
        # nats, not tenths of the target
        VERDICT.format(
            **{
                **PARTS,
                "above": "max(last) * target > 0.1",
                "below": "min(last) * target < -0.1",
            }
        ),
        # any side is a swing
        VERDICT.format(**{**PARTS, "swings": "above or below"}),
        # only what is above is late
        VERDICT.format(**{**PARTS, "settled": "not above"}),
        # the last number alone
        VERDICT.format(**{**PARTS, "part": "kls[-1:]"}),
    ],
    "ex5_5": [
        # the chapter's own: too small a beta, in units of one reward model
        SETTING.format(beta="0.4", horizon="20"),
        # the right beta for this reward, whatever the scale
        SETTING.format(beta="0.83", horizon="20"),
        # the unit of the rewards, but reacts at once
        SETTING.format(beta="0.3 * spread", horizon="1"),
        # the unit of the rewards, but never arrives
        SETTING.format(beta="0.3 * spread", horizon="2000"),
        # a constant moves it
        SETTING.format(beta="0.3 * rewards.abs().max().item()", horizon="20"),
        # starts too low and has to pull back
        SETTING.format(beta="0.01 * spread", horizon="20"),
    ],
}
