"""Plausible mistakes in the exercises of chapter 9, by the exercise they belong to."""

UNBIASED = """
def unbiased(margins, said_first, a, b):
    first, second = -logsigmoid(margins), -logsigmoid(-margins)
    if_first = {first}
    if_second = {second}
    return torch.where(said_first, if_first, if_second).{how}()
"""
FIRST = "((1 - b) * first - a * second) / (1 - a - b)"
SECOND = "((1 - a) * second - b * first) / (1 - a - b)"

LIBRARY = """
def unbiased(margins, said_first, a, b):
    margins = torch.where(said_first, margins, -margins)
    nil = torch.zeros_like(margins)
    wrong = {wrong}
    return preference.robust_dpo(
        margins, nil, nil, nil, beta=1.0, label_smoothing=wrong
    )[0]
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

EXPERIMENT = """
def experiment():
    return {{
        "again": [run(64, 4, {seeds}) for seed in range(3)],
        "more": [run(256, 1, {seeds}) for seed in range(3)],
    }}

def compare(one, other):
    gaps = {gaps}
    return sum(gaps) / len(gaps), min(gaps), max(gaps)
"""

WRONG = {
    "ex9_2": [
        # the library's, with the mean share of mistakes
        LIBRARY.format(wrong="min((a + b) / 2, 0.49)"),
        # the library's, with one of the shares
        LIBRARY.format(wrong="a"),
        # cDPO's weights: conservative, and biased
        UNBIASED.format(
            first="(1 - a) * first + a * second",
            second="(1 - b) * second + b * first",
            how="mean",
        ),
        # forgets to rescale
        UNBIASED.format(
            first="(1 - b) * first - a * second",
            second="(1 - a) * second - b * first",
            how="mean",
        ),
        # a and b exchanged
        UNBIASED.format(
            first="((1 - a) * first - b * second) / (1 - a - b)",
            second="((1 - b) * second - a * first) / (1 - a - b)",
            how="mean",
        ),
        # a sum over pairs
        UNBIASED.format(first=FIRST, second=SECOND, how="sum"),
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
    "ex9_6": [
        # unpaired: the lowest and highest of each kind
        EXPERIMENT.format(gaps="sorted(a[0] - one[0][0] for a in one)", seeds="seed"),
        # the difference of KL
        EXPERIMENT.format(
            gaps="[a[1] - b[1] for a, b in zip(one, other)]", seeds="seed"
        ),
        # the wrong way round
        EXPERIMENT.format(
            gaps="[b[0] - a[0] for a, b in zip(one, other)]", seeds="seed"
        ),
        # one seed three times
        EXPERIMENT.format(gaps="[a[0] - b[0] for a, b in zip(one, other)]", seeds="0"),
    ],
}
