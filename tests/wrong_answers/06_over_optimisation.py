"""Plausible mistakes in the exercises of chapter 6, by the exercise they belong to."""

BEST = """
def best_of(proxy, gold, n):
    rank = torch.arange(1, len(proxy) + 1, dtype=torch.float64)
    log_count = {count}
    weights = log_count.masked_fill(rank < n, -torch.inf).{normalised}
    return weights @ {ordered}
"""
COUNT = "torch.lgamma(rank) - torch.lgamma((rank - n).clamp(min=0) + 1)"

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
        # in the order of gold: what is never seen
        BEST.format(count=COUNT, normalised="softmax(0)", ordered="gold.sort().values"),
        # not sorted at all
        BEST.format(count=COUNT, normalised="softmax(0)", ordered="gold"),
        # the worst of n
        BEST.format(
            count=COUNT,
            normalised="softmax(0)",
            ordered="gold[proxy.argsort(descending=True)]",
        ),
        # C(i, n) instead of C(i - 1, n - 1)
        BEST.format(
            count="torch.lgamma(rank + 1) - torch.lgamma((rank - n).clamp(min=0) + 1)",
            normalised="softmax(0)",
            ordered="gold[proxy.argsort()]",
        ),
        # overflows
        BEST.format(
            count=f"({COUNT}).exp()",
            normalised="masked_fill(rank < n, 0).div((" + COUNT + ").exp()"
            ".masked_fill(rank < n, 0).sum())",
            ordered="gold[proxy.argsort()]",
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
}
