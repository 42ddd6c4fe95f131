"""Plausible mistakes in the exercises of chapter 9, by the exercise they belong to."""

UNBIASED = """
def unbiased(margins, flipped):
    right, wrong = -logsigmoid(margins), -logsigmoid(-margins)
    return {loss}
"""

ZERO = """
def zero(ratio, count):
    rows = torch.arange(count)
    return {found}
"""

USABLE = """
def usable(prompts, chosen, rejected, most):
    found = []
    for prompt, won, lost in zip(prompts, chosen, rejected):
        {cut}
        found.append({fine})
    return found
"""
CUT = "room = max(0, most - len(prompt)); won, lost = won[:room], lost[:room]"
FINE = "bool(won) and bool(lost) and won != lost"

MOVED = """
def moved(before, after):
    def whole(logps):
        return torch.cat((logps, {rest}[None]))
    was, now = whole(before), whole(after)
    return now[-1].exp() - was[-1].exp(), {kl}
"""
REST = "torch.log1p(-logps.exp().sum())"

WRONG = {
    "ex9_2": [
        # cDPO: conservative, and biased
        UNBIASED.format(loss="((1 - flipped) * right + flipped * wrong).mean()"),
        # forgets to rescale
        UNBIASED.format(loss="((1 - flipped) * right - flipped * wrong).mean()"),
        # rescales by the share of right labels
        UNBIASED.format(
            loss="(((1 - flipped) * right - flipped * wrong) / (1 - flipped)).mean()"
        ),
        # the two sides exchanged
        UNBIASED.format(
            loss="(((1 - flipped) * wrong - flipped * right) / (1 - 2 * flipped)).mean()"
        ),
        # a sum over pairs
        UNBIASED.format(
            loss="(((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)).sum()"
        ),
    ],
    "ex9_3": [
        # matched rows, rolled and averaged
        ZERO.format(found="ratio(rows, rows).roll(1).mean().clamp(min=0)"),
        # both rolled: matched again
        ZERO.format(found="ratio(rows.roll(1), rows.roll(1)).mean().clamp(min=0)"),
        # may be negative
        ZERO.format(found="ratio(rows, rows.roll(1)).mean()"),
        # each row held at 0 before the mean
        ZERO.format(found="ratio(rows, rows.roll(1)).clamp(min=0).mean()"),
        # the answer of the row after
        ZERO.format(found="ratio(rows, rows.roll(-1)).mean().clamp(min=0)"),
    ],
    "ex9_4": [
        # looks before cutting
        USABLE.format(cut="pass", fine=FINE),
        # cuts the answers as if there were no prompt
        USABLE.format(cut="won, lost = won[:most], lost[:most]", fine=FINE),
        # only looks for equal ones
        USABLE.format(cut=CUT, fine="won != lost"),
        # drops whatever was cut
        USABLE.format(
            cut="room = most - len(prompt)",
            fine="bool(won) and bool(lost) and won != lost"
            " and max(len(won), len(lost)) <= room",
        ),
        # a negative room cuts from the other end
        USABLE.format(
            cut="room = most - len(prompt); won, lost = won[:room], lost[:room]",
            fine=FINE,
        ),
    ],
    "ex9_5": [
        # in the direction of the forward KL
        MOVED.format(rest=REST, kl="(was.exp() * (was - now)).sum()"),
        # forgets everything else in the KL
        MOVED.format(rest=REST, kl="(now.exp() * (now - was))[:-1].sum()"),
        # the sum of log-ratios, unweighted
        MOVED.format(rest=REST, kl="(now - was).sum()"),
        # the mean probability instead of the sum
        MOVED.format(
            rest="torch.log1p(-logps.exp().mean())",
            kl="(now.exp() * (now - was)).sum()",
        ),
        # before less after
        MOVED.format(rest=REST, kl="(now.exp() * (now - was)).sum()").replace(
            "now[-1].exp() - was[-1].exp()", "was[-1].exp() - now[-1].exp()"
        ),
    ],
}
