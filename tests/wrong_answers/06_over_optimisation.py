"""Plausible mistakes in the exercises of chapter 6, by the exercise they belong to."""

CHANCES = """
def chances(proxy, n):
    rank = {rank}
    log_count = {count}
    return {shares}
"""
RANK = "proxy.argsort().argsort().double() + 1"
COUNT = "torch.lgamma(rank) - torch.lgamma((rank - n).clamp(min=0) + 1)"
SHARES = "log_count.masked_fill(rank < n, -torch.inf).softmax(0)"

STOP = """
def stop(kl, nats):
    {stop}


def left_out(kls, golds, grid):
    rows = [[gold[stop(kl, nats)] for nats in grid] for kl, gold in zip(kls, golds)]
    reached = torch.tensor(rows, dtype=torch.float64)
    best = {best}
    budgets = torch.tensor(grid, dtype=torch.float64)[best]
    return budgets, {got}
"""
FIRST = """passed = (kl > nats).nonzero()
    return max(int(passed[0]) - 1, 0) if len(passed) else len(kl) - 1"""
OTHERS = "(reached.sum(0) - reached).argmax(1)"
OWN = "reached[torch.arange(len(reached)), best]"

REWARDS = """
def rewards(scores, logps, ref_logps, mask, beta):
    {line}
    return {found}
"""
K1 = "k1 = (logps - ref_logps).masked_fill(~mask, 0)"

DISTANCE = """
def distance(ref_logps, rewards, n):
    logps = best_of_n_policy(ref_logps, rewards, n)
    ratio = (logps - ref_logps).masked_fill(logps == -torch.inf, 0)
    return {found}
"""

WRONG = {
    "ex6_2": [
        # in the order of the ranks, not of the answers
        CHANCES.format(
            rank="torch.arange(1, len(proxy) + 1).double()", count=COUNT, shares=SHARES
        ),
        # sorted once: which answer has a rank, not which rank an answer
        CHANCES.format(rank="proxy.argsort().double() + 1", count=COUNT, shares=SHARES),
        # the worst of n
        CHANCES.format(
            rank="(-proxy).argsort().argsort().double() + 1",
            count=COUNT,
            shares=SHARES,
        ),
        # C(i, n) instead of C(i - 1, n - 1)
        CHANCES.format(
            rank=RANK,
            count="torch.lgamma(rank + 1) - torch.lgamma((rank - n).clamp(min=0) + 1)",
            shares=SHARES,
        ),
        # drawn with replacement
        CHANCES.format(
            rank=RANK,
            count="None",
            shares="(rank / len(rank)) ** n - ((rank - 1) / len(rank)) ** n",
        ),
        # overflows
        CHANCES.format(
            rank=RANK,
            count="COUNT.exp().masked_fill(rank < n, 0)".replace("COUNT", f"({COUNT})"),
            shares="log_count / log_count.sum()",
        ),
    ],
    "ex6_3": [
        # as it was reported
        REWARDS.format(
            line="kl = -(logps - ref_logps)",
            found="scores - beta * (kl * mask).sum(1)",
        ),
        # the sign mended where it was, and NaN behind the mask
        REWARDS.format(
            line="kl = logps - ref_logps",
            found="scores - beta * (kl * mask).sum(1)",
        ),
        # the sign mended, the mask too, and a bonus again
        REWARDS.format(line=K1, found="scores + beta * k1.sum(1)"),
        # a mean over tokens
        REWARDS.format(line=K1, found="scores - beta * k1.sum(1) / mask.sum(1)"),
        # never negative
        REWARDS.format(line=K1, found="scores - beta * k1.abs().sum(1)"),
    ],
    "ex6_4": [
        # as it was reported
        DISTANCE.format(found="torch.tensor(float(n)).double().log().sqrt()"),
        # the bound
        DISTANCE.format(
            found="torch.tensor(best_of_n_kl_bound(n)).double().clamp(min=0).sqrt()"
        ),
        # the other direction
        DISTANCE.format(
            found="-(ref_logps.exp() * ratio).sum().clamp(max=0).abs().sqrt()"
        ),
        # no root
        DISTANCE.format(found="(logps.exp() * ratio).sum()"),
        # 0 · -inf is NaN
        DISTANCE.format(found="(logps.exp() * (logps - ref_logps)).sum().sqrt()"),
    ],
    "ex6_5": [
        # the last exam below the budget, wherever the KL was before
        STOP.format(
            stop="return int((kl <= nats).nonzero()[-1]) if (kl <= nats).any() else 0",
            best=OTHERS,
            got=OWN,
        ),
        # the first exam beyond it
        STOP.format(
            stop="return int((kl > nats).nonzero()[0]) if (kl > nats).any() "
            "else len(kl) - 1",
            best=OTHERS,
            got=OWN,
        ),
        # one that is just met is passed
        STOP.format(
            stop=FIRST.replace("kl > nats", "kl >= nats"), best=OTHERS, got=OWN
        ),
        # chosen on all runs, the left-out one too
        STOP.format(
            stop=FIRST,
            best="reached.mean(0).argmax().repeat(len(reached))",
            got=OWN,
        ),
        # chosen on the run itself
        STOP.format(stop=FIRST, best="reached.argmax(1)", got=OWN),
        # what the others get with it
        STOP.format(
            stop=FIRST,
            best=OTHERS,
            got="((reached.sum(0) - reached) / (len(reached) - 1))"
            "[torch.arange(len(reached)), best]",
        ),
    ],
}
