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

KL = """
def mean_kl(logits, ref_logits):
    logps, ref_logps = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return {found}
"""

LOSS = """
def loss(logps, ref_logps, rewards, beta):
    {paid}
    return {found}
"""

PAID = """
def paid(scores, logps, ref_logps, mask, beta):
    d = {ratio}
    return {found}
"""
FILLED = "(logps - ref_logps).masked_fill(~mask, 0)"

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
        KL.format(found='F.kl_div(ref_logps, logps, reduction="batchmean")'),
        # log_target, but the arguments the other way round
        KL.format(
            found='F.kl_div(logps, ref_logps, reduction="batchmean", log_target=True)'
        ),
        # a mean over entries
        KL.format(found="(logps.exp() * (logps - ref_logps)).mean()"),
        # a sum over rows
        KL.format(found='F.kl_div(ref_logps, logps, reduction="sum", log_target=True)'),
        # NaN swept under the carpet
        KL.format(
            found='F.kl_div(ref_logps, logps, reduction="batchmean").nan_to_num()'
        ),
        # logits are not log-probabilities
        "def mean_kl(logits, ref_logits):\n"
        '    return F.kl_div(ref_logits, logits, reduction="batchmean", log_target=True)',
    ],
    "ex5_4": [
        # as it was reported, without the baseline: k1 in the loss
        LOSS.format(
            paid="gain = rewards * logps",
            found="-gain.mean() + beta * (logps - ref_logps).mean()",
        ),
        # the sign: divergence is paid
        LOSS.format(
            paid="paid = rewards + beta * (logps - ref_logps).detach()",
            found="-(paid * logps).mean()",
        ),
        # k3 in the loss
        LOSS.format(
            paid="d = logps - ref_logps",
            found="(-rewards * logps + beta * (torch.exp(-d) - 1 + d)).mean()",
        ),
        # in the reward, but not detached
        LOSS.format(
            paid="paid = rewards - beta * (logps - ref_logps)",
            found="-(paid * logps).mean()",
        ),
        # k2 in the loss without its half
        LOSS.format(
            paid="d = logps - ref_logps",
            found="(-rewards * logps + beta * d ** 2).mean()",
        ),
        # climbs down
        LOSS.format(
            paid="paid = rewards - beta * (logps - ref_logps).detach()",
            found="(paid * logps).mean()",
        ),
        # everything detached but the value
        LOSS.format(
            paid="paid = rewards - beta * (logps - ref_logps)",
            found="-(paid * logps.detach()).mean()",
        ),
    ],
    "ex5_5": [
        # as it was reported
        PAID.format(
            ratio="(logps - ref_logps) * mask",
            found="scores - beta * d.sum(1) / mask.sum(1)",
        ),
        # the sum, but NaN comes through
        PAID.format(
            ratio="(logps - ref_logps) * mask", found="scores - beta * d.sum(1)"
        ),
        # filled, but still the mean
        PAID.format(ratio=FILLED, found="scores - beta * d.sum(1) / mask.sum(1)"),
        # the sign
        PAID.format(ratio=FILLED, found="scores + beta * d.sum(1)"),
        # padding counts
        PAID.format(ratio="logps - ref_logps", found="scores - beta * d.sum(1)"),
        # only leaving upwards is charged
        PAID.format(ratio=FILLED, found="scores - beta * d.clamp(min=0).sum(1)"),
    ],
}
