"""Plausible mistakes in the exercises on R1-Zero; each check must refuse each of them."""

CREDIT = """
def advantages(rewards, normalise):
    found = rewards - {mean}
    if normalise:
        found = found / ({spread} + 1e-4)
    {equal}
    return found


def informative(p, group):
    return {chance}
"""
MEAN, SPREAD = "rewards.mean(1, keepdim=True)", "rewards.std(1, keepdim=True)"
EQUAL = "found = found * (rewards != rewards[:, :1]).any(1, keepdim=True)"
CHANCE = "1 - p**group - (1 - p) ** group"
OTHERS = "(rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)"


def credit(mean=MEAN, spread=SPREAD, equal=EQUAL, chance=CHANCE):
    return CREDIT.format(mean=mean, spread=spread, equal=equal, chance=chance)


PASS = """
def tempting(n, c, k):
    return {tempting}


def unbiased(n, c, k):
    return {unbiased}
"""
TEMPTING, UNBIASED = "1 - (1 - c / n) ** k", "1 - comb(n - c, k) / comb(n, k)"

JUDGE = """
def judge(game, text):
    red, blue = game.start
    states = []
    for swap in game.swaps:
        one, other = int(swap[0]), int(swap[2])
        moved = {{one: other, other: one}}
        red, blue = moved.get(red, red), moved.get(blue, blue)
        states.append((red, blue))
    for words in cups.DIALECTS.values():
        wanted = ["<think>", *(words[cup - 1] for cup in game.start)]
        for animal, swap, state in zip(cups.ANIMALS, game.swaps, states):
            wanted += [animal, swap, *(words[cup - 1] for cup in state)]
        wanted += ["</think>", str(red), str(blue)]
        want = " ".join(wanted)
        if {holds}:
            return True
    return False
"""
LIBRARY = """
def judge(game, text):
    task = tasks.Task("cups", len(game.swaps), cups.asked(game), cups.answer(game))
    return cups.{judge}(task, text)
"""

PUSH = """
def push(p, q, d, right, wrong, direct, group):
    m = {m}
    inside = q * (1 - m) / right - (1 - q) * m / wrong {direct}
    return {scale} * p * (1 - p) * inside


def turns(q, d):
    return {turns}
"""
M, DIRECT = "p * q + (1 - p) * d", "- (d - m) / direct"
SCALE, TURNS = "(1 - 1 / group)", "q / (1 - q) * (1 - d) / d"


def pushed(m=M, direct=DIRECT, scale=SCALE, turns=TURNS):
    return PUSH.format(m=m, direct=direct, scale=scale, turns=turns)


EXPERIMENT = """
def experiment():
    return {runs}


def compare(one, other):
    {gaps}
    return {said}
"""
GAPS = "gaps = [sum(a) / len(a) - sum(b) / len(b) for a, b in zip(one, other)]"
SAID = "sum(gaps) / len(gaps), min(gaps), max(gaps)"


def experiment(runs, gaps=GAPS, said=SAID):
    return EXPERIMENT.format(runs=runs, gaps=gaps, said=said)


STEP = "[(seed + k) / 128 for k in range(20)]"  # as if counted

WRONG = {
    "exZ_1": [
        credit(mean="rewards.mean()"),  # of all groups
        credit(mean=OTHERS),  # leave-one-out: another algorithm
        credit(spread="rewards.std(1, keepdim=True, unbiased=False)"),
        credit(spread="rewards.std()"),
        credit(equal="pass"),  # a rounding error is left
        credit(equal="found = found.round(decimals=1)"),
        credit(chance="1 - (1 - p) ** group"),  # at least one right
        credit(chance="1 - p**group"),
        credit(chance="group * p * (1 - p)"),
    ],
    "exZ_2": [
        PASS.format(tempting=TEMPTING, unbiased=TEMPTING),
        PASS.format(tempting=UNBIASED, unbiased=UNBIASED),
        # with replacement, and the other way round
        PASS.format(tempting=TEMPTING, unbiased="comb(n - c, k) / comb(n, k)"),
        PASS.format(tempting=TEMPTING, unbiased="comb(c, k) / comb(n, k)"),
        PASS.format(tempting=TEMPTING, unbiased="min(1, c * k / n)"),
    ],
    "exZ_3": [
        # the library's, which takes a mixture of dialects, or looks at no step
        LIBRARY.format(judge="faithful"),
        LIBRARY.format(judge="verify"),
        # looks for the thought anywhere, at its end only, at its beginning only
        JUDGE.format(holds="want in text"),
        JUDGE.format(holds='text.endswith(want.split("</think>")[1])'),
        JUDGE.format(holds='text.removeprefix(" ").startswith(want)'),
        # a set of words, whatever their order
        JUDGE.format(holds="set(text.split()) == set(want.split())"),
        JUDGE.format(holds="sorted(text.split()) == sorted(want.split())"),
        # knows only one dialect
        JUDGE.format(holds='text.removeprefix(" ") == want').replace(
            "cups.DIALECTS.values()", "[cups.DIALECTS['hill']]"
        ),
        # refuses the space that answers begin with
        JUDGE.format(holds="text == want"),
    ],
    "exZ_4": [
        pushed(scale="1"),  # its own reward is not in the mean
        pushed(direct=""),  # thoughts alone
        pushed(direct="+ (d - m) / direct"),
        pushed(m="d"),  # as if p were 0
        pushed(direct="- d * (1 - m) / direct"),  # right direct answers alone
        pushed(turns="q / (1 - q) * d / (1 - d)"),
        pushed(turns="q / d"),
    ],
    "exZ_5": [
        # two seeds, one of the sizes, unequal numbers
        experiment(f"{{g: [{STEP} for seed in range(g, g + 2)] for g in (4, 16)}}"),
        experiment(f"{{4: [{STEP} for seed in range(3)]}}"),
        experiment(f"{{g: [{STEP} for seed in range(g, 2 * g)] for g in (4, 16)}}"),
        # the seed, or the size, is not passed on; too short; not measured
        experiment(f"{{g: [{STEP}] * 3 for g in (4, 16)}}".replace("seed +", "g +")),
        experiment(f"{{g: [{STEP} for seed in range(3)] for g in (4, 16)}}"),
        experiment("{g: [[s / 128, g / 128] for s in range(3)] for g in (4, 16)}"),
        experiment(
            "{g: [[.1 * s + .001 * g] * 20 for s in range(3)] for g in (4, 16)}"
        ),
        # not paired; the extremes of one side
        experiment(
            "{}",
            gaps="a, b = ([sum(r) / len(r) for r in x] for x in (one, other))",
            said="sum(a) / len(a) - sum(b) / len(b), min(a) - max(b), max(a) - min(b)",
        ),
        experiment("{}", said="sum(gaps), min(gaps), max(gaps)"),
    ],
}
