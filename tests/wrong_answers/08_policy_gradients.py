"""Plausible mistakes in the exercises of chapter 8, by the exercise they belong to."""

WEIGHTS = """
def weights(mask, mean, length=None):
    inside = mask.double()
    if mean == "own":
        return {own}
    if mean == "batch":
        return {batch}
    return {constant}
"""
OWN = "inside / inside.sum(1, keepdim=True) / len(mask)"
BATCH = "inside / inside.sum()"
CONSTANT = "inside / (len(mask) * length)"

DR_GRPO = """
def dr_grpo(logps, old_logps, advantages, mask, length, clip=0.2):
    log_ratio = {log_ratio}
    ratio, A = log_ratio.exp(), advantages.unsqueeze(1)
    surrogate = {surrogate}
    return {loss}
"""
FILLED = "(logps - old_logps).masked_fill(~mask, 0)"
PESSIMISTIC = "torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)"
SUMMED = "-surrogate.masked_fill(~mask, 0).sum() / (len(mask) * length)"

FRACTIONS = """
def clip_fractions(logps_by_epoch, mask, clip=0.2):
    written, shares = logps_by_epoch[0], []
    for logps in logps_by_epoch:
        ratio = {ratio}
        shares.append({share})
        {then}
    return shares
"""
RATIO = "(logps - written).exp()"
SHARE = "((ratio[mask] - 1).abs() > clip).double().mean().item()"

FACTOR = """
def factor(p, group):
    return {found}
"""

TUNED = """
def sweep(widths, seeds):
    return {{wide: [run(wide, {seed}) for seed in seeds] for wide in widths}}

def choose(results):
    return max(results, key=lambda wide: {by})

def gain(results, wide, other):
    gaps = {gaps}
    return sum(gaps) / len(gaps), min(gaps), max(gaps)

WIDTHS, SEEDS = {widths}
"""
CHOSEN = "sum(r[0] for r in results[wide])"
PAIRED = "[a[1] - b[1] for a, b in zip(results[wide], results[other])]"
SWEPT = "(1, 1000, 2000), (0, 1)"

DIAGNOSED = """
def diagnose(curves):
    reward, clip = curves["reward"], curves.get("clip_fraction", [0.0])
    silent, entropy = curves["zero_variance"][-1], curves["entropy"][-1]
    if {tight}:
        return "clip too tight"
    if {fine}:
        return "fine"
    return "rate too high" if {high} else "rate too low"
"""
TIGHT = "sum(clip) / len(clip) > 0.5"
FINE = "sum(reward[-4:]) / 4 > 0.7"
HIGH = "sum(reward[-4:]) / 4 < 0.05"

WRONG = {
    "ex8_2": [
        # an answer's tokens share, but answers are summed
        WEIGHTS.format(
            own="inside / inside.sum(1, keepdim=True)", batch=BATCH, constant=CONSTANT
        ),
        # the mean of the batch for all
        WEIGHTS.format(own=BATCH, batch=BATCH, constant=CONSTANT),
        # counts what is behind the mask
        WEIGHTS.format(own=OWN, batch="inside / mask.numel()", constant=CONSTANT),
        WEIGHTS.format(
            own="inside * 0 + inside.mean()", batch=BATCH, constant=CONSTANT
        ),
        # weights behind the mask
        WEIGHTS.format(
            own=OWN, batch="(inside * 0 + 1) / inside.sum()", constant=CONSTANT
        ),
        # forgets the answers, or takes the longest for the length
        WEIGHTS.format(own=OWN, batch=BATCH, constant="inside / length"),
        WEIGHTS.format(own=OWN, batch=BATCH, constant="inside / mask.numel()"),
    ],
    "ex8_3": [
        # as it was reported
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate=PESSIMISTIC,
            loss="-((surrogate * mask).sum(1) / mask.sum(1)).mean()",
        ),
        # DAPO's mean
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate=PESSIMISTIC,
            loss="-(surrogate * mask).sum() / mask.sum()",
        ),
        # each answer by the length, and then a sum
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate=PESSIMISTIC,
            loss="-(surrogate * mask).sum() / length",
        ),
        # the larger of the two, or no clip, or only the clip
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate=PESSIMISTIC.replace("minimum", "maximum"),
            loss=SUMMED,
        ),
        DR_GRPO.format(log_ratio=FILLED, surrogate="ratio * A", loss=SUMMED),
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate="ratio.clamp(1 - clip, 1 + clip) * A",
            loss=SUMMED,
        ),
        # lets NaN through
        DR_GRPO.format(
            log_ratio="logps - old_logps",
            surrogate=PESSIMISTIC,
            loss="-(surrogate * mask).sum() / (len(mask) * length)",
        ),
        # pushes behind the mask
        DR_GRPO.format(
            log_ratio="logps - old_logps",
            surrogate=PESSIMISTIC,
            loss="-surrogate.sum() / (len(mask) * length)",
        ),
        # the clip is 0.2, whatever one asks
        DR_GRPO.format(
            log_ratio=FILLED,
            surrogate="torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)",
            loss=SUMMED,
        ),
        # minus for plus
        DR_GRPO.format(log_ratio=FILLED, surrogate=PESSIMISTIC, loss=SUMMED[1:]),
    ],
    "ex8_4": [
        # as it was reported: compared with itself
        FRACTIONS.format(ratio="(logps - logps).exp()", share=SHARE, then="pass"),
        # with the epoch before
        FRACTIONS.format(ratio=RATIO, share=SHARE, then="written = logps"),
        # counts what is behind the mask
        FRACTIONS.format(
            ratio=RATIO,
            share="((ratio - 1).abs() > clip).double().mean().item()",
            then="pass",
        ),
        # the log-ratio for the ratio
        FRACTIONS.format(ratio="1 + logps - written", share=SHARE, then="pass"),
        # only upwards
        FRACTIONS.format(
            ratio=RATIO,
            share="(ratio[mask] > 1 + clip).double().mean().item()",
            then="pass",
        ),
        # the clip is 0.2, whatever one asks
        FRACTIONS.format(ratio=RATIO, share=SHARE.replace("clip", "0.2"), then="pass"),
    ],
    "ex8_5": [
        # without the baseline
        FACTOR.format(found="(1 - (1 - p) ** group) / p"),
        # the limit
        FACTOR.format(found="1 / p"),
        # RLOO's
        FACTOR.format(found="1.0"),
        # the second part alone
        FACTOR.format(found="(1 - p) ** (group - 1)"),
        # the gradient of the chance that one is right
        FACTOR.format(found="group * (1 - p) ** (group - 1)"),
    ],
    "ex8_6": [
        # chooses by what it reports
        TUNED.format(
            seed="seed",
            by="sum(r[1] for r in results[wide])",
            gaps=PAIRED,
            widths=SWEPT,
        ),
        # by the luckiest seed
        TUNED.format(
            seed="seed",
            by="max(r[0] for r in results[wide])",
            gaps=PAIRED,
            widths=SWEPT,
        ),
        # reports what it chose by
        TUNED.format(
            seed="seed", by=CHOSEN, gaps=PAIRED.replace("[1]", "[0]"), widths=SWEPT
        ),
        # the other way round
        TUNED.format(
            seed="seed",
            by=CHOSEN,
            gaps=PAIRED.replace("a[1] - b", "b[1] - a"),
            widths=SWEPT,
        ),
        # one seed
        TUNED.format(seed="seed", by=CHOSEN, gaps=PAIRED, widths="(1, 10, 100), (0,)"),
        # two widths
        TUNED.format(seed="seed", by=CHOSEN, gaps=PAIRED, widths="(1, 10), (0, 1)"),
        # the seed is not passed on
        TUNED.format(seed="0", by=CHOSEN, gaps=PAIRED, widths=SWEPT),
    ],
    "ex8_7": [
        # zero variance alone
        DIAGNOSED.format(tight=TIGHT, fine="silent > 0.8", high=HIGH),
        # entropy alone
        DIAGNOSED.format(tight=TIGHT, fine=FINE, high="entropy < 0.1"),
        # any clipping is too tight
        DIAGNOSED.format(tight="max(clip) > 0", fine=FINE, high=HIGH),
        # never looks at the clip
        DIAGNOSED.format(tight="False", fine=FINE, high=HIGH),
        # by the first update
        DIAGNOSED.format(tight=TIGHT, fine="reward[0] > 0.7", high=HIGH),
        # a slow run is fine
        DIAGNOSED.format(tight=TIGHT, fine="reward[-1] > 0", high=HIGH),
    ],
}
