"""Plausible mistakes in the exercises of "KL estimators", by the exercise."""

SUMMED = """
def summed_kl(logits, ref_logits, mask, temperature=1.0):
    {fill}
    logps, ref_logps = {both}
    log_ratio = {ratio}
    each = ({weight} * log_ratio).sum(-1)
    return {found}
"""
PARTS = {
    "fill": (
        "logits, ref_logits = (x.masked_fill(~mask.unsqueeze(-1), 0)"
        " for x in (logits, ref_logits))"
    ),
    "both": "(logits / temperature).log_softmax(-1), ref_logits.log_softmax(-1)",
    "ratio": "(logps - ref_logps).masked_fill(logps == -torch.inf, 0)",
    "weight": "logps.exp()",
    "found": "each.masked_fill(~mask, 0).sum(1)",
}

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
    "exK_2": [
        # calls the library
        "from lib import kl\n"
        "def summed_kl(logits, ref_logits, mask, temperature=1.0):\n"
        "    fill = [x.masked_fill(~mask.unsqueeze(-1), 0) for x in (logits, ref_logits)]\n"
        "    each = kl.exact_kl(fill[0] / temperature, fill[1])\n"
        "    return each.masked_fill(~mask, 0).sum(1)",
        # a mean over tokens
        SUMMED.format(
            **{**PARTS, "found": "each.masked_fill(~mask, 0).sum(1) / mask.sum(1)"}
        ),
        # NaN times zero
        SUMMED.format(**{**PARTS, "fill": "pass", "found": "(each * mask).sum(1)"}),
        # NaN where a word was cut off
        SUMMED.format(**{**PARTS, "ratio": "logps - ref_logps"}),
        # the other way round
        SUMMED.format(
            **{**PARTS, "ratio": "ref_logps - logps", "weight": "ref_logps.exp()"}
        ),
        # the temperature forgotten
        SUMMED.format(
            **{**PARTS, "both": "logits.log_softmax(-1), ref_logits.log_softmax(-1)"}
        ),
        # the reference at that temperature, too
        SUMMED.format(
            **{
                **PARTS,
                "both": "((x / temperature).log_softmax(-1) for x in (logits, ref_logits))",
            }
        ),
        # padding counts
        SUMMED.format(**{**PARTS, "fill": "pass", "found": "each.nan_to_num().sum(1)"}),
    ],
    "exK_3": [
        # calls the library
        "from lib import kl\n"
        "def mean_kl(logits, ref_logits):\n"
        "    return kl.exact_kl(logits, ref_logits).mean()",
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
    "exK_4": [
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
    "exK_5": [
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
