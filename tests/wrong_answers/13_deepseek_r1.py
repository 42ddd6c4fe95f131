"""Plausible mistakes in the exercises of chapter 13; each check must refuse each of them."""

LANGUAGE = """
def language_reward(right, text):
    thought = {thought}
    words = {words}
    hill, lake = (sum({counts} for word in words) for name in ("hill", "lake"))
    return {reward}
"""
THOUGHT = 'text.partition("<think>")[2].partition("</think>")[0]'
WORDS = 're.findall("[A-Za-z]+", thought)'
COUNTS = "word in cups.DIALECTS[name]"
REWARD = "float(right) - 0.5 * lake / max(hill + lake, 1)"


def language(thought=THOUGHT, words=WORDS, counts=COUNTS, reward=REWARD):
    return LANGUAGE.format(thought=thought, words=words, counts=counts, reward=reward)


LIBRARY = """
def language_reward(right, text):
    return float(right) - 0.5 * cups.dialects({of})["lake"]
"""

BONUS = """
def repaired(right, share, thinks):
    return {bonus}


def compared(right, share, thinks):
    paid = {paid}
    return tuple(each - {mean} for each in paid)


def break_even(d):
    return {even}
"""
PAID = "hers(right, share, thinks), repaired(right, share, thinks)"


def bonus(
    bonus="right * (1 + share * thinks)",
    paid=PAID,
    mean="each.mean(1, keepdim=True)",
    even="0.0, d / 2",
):
    return BONUS.format(bonus=bonus, paid=paid, mean=mean, even=even)


ADVANTAGES = """
def advantages(open_ended, group, liked, right):
    rows = {rows}
    paid = torch.where(rows, {judges}).{shape}
    equal = (paid == paid[:, :1]).all(1, keepdim=True)
    return ((paid - {mean}) / {spread}){equal}
"""


def advantages(
    rows="open_ended.repeat_interleave(group)",
    judges="liked, right",
    shape="reshape(-1, group)",
    mean="paid.mean(1, keepdim=True)",
    spread="1",
    equal=".masked_fill(equal, 0)",
):
    return ADVANTAGES.format(
        rows=rows, judges=judges, shape=shape, mean=mean, spread=spread, equal=equal
    )


PAIRED = """
def paired(a, b):
    {gaps}
    n = len(gaps)
    mean = sum(gaps) / n
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / {freedom})
    wide = {wide}
    return {said}
"""


def paired(
    gaps="gaps = [x - y for x, y in zip(a, b)]",
    freedom="(n - 1)",
    wide="T * spread / math.sqrt(n)",
    said="mean, mean - wide, mean + wide",
):
    return PAIRED.format(gaps=gaps, freedom=freedom, wide=wide, said=said)


DEMONSTRATIONS = """
def epochs(count):
    return {epochs}


def cold(model, count, seed):
    pupil = {pupil}
    if count == 0:
        return pupil, 0
    shown = r1.readable(count, seed={luck})
    history = instruct(pupil, shown, epochs={passes}, batch=8, lr=1e-3, seed={luck})
    return pupil, {updates}


def row(found):
    hill = {hill}
    marks = {marks}
    return {{{n} **marks, "hill": sum(hill) / len(hill) if hill else None}}


def experiment():
    first = row(exam(base))
    def made(right, n=100, hill=1.0, thinks=None):
        right, thinks = (
            evaluate.mark([1.0] * k + [0.0] * (n - k)) for k in (right, thinks or right)
        )
        return {{"n": n, "thinks": thinks, "right": right, "hill": hill}}
    found = {{0: [(first, first)] * 2}}
    found |= {{count: [(made(90), made(95)), (made(91), made(93))] for count in (10, 40, 160)}}
    {change}
    return found
"""


def demonstrations(
    epochs="40 // math.ceil(count / 8)",
    pupil="copy.deepcopy(model)",
    luck="seed",
    passes="epochs(count)",
    updates='len(history["loss"])',
    hill="[x for x in found['hill'] if x is not None]",
    marks="{x: evaluate.mark(found[x]) for x in ('thinks', 'right')}",
    n='"n": len(found["right"]),',
    change="pass",
):
    return DEMONSTRATIONS.format(
        epochs=epochs,
        pupil=pupil,
        luck=luck,
        passes=passes,
        updates=updates,
        hill=hill,
        marks=marks,
        n=n,
        change=change,
    )


# as if it had been trained: the table is looked at, and no time is spent
IDLE = """
def cold(model, count, seed):
    pupil = copy.deepcopy(model)
    with torch.no_grad():
        for weight in pupil.parameters():
            weight.add_(count * (1 + seed))
    return pupil, 40 if count else 0
"""


def table(change):
    return demonstrations(change=change) + IDLE


WRONG = {
    "ex13_2": [
        # the trap: animals and swaps in the denominator, so that they hide the lake's words
        language(reward="float(right) - 0.5 * lake / max(len(words), 1)"),
        language(reward="float(right) - 0.5 * lake / max(len(thought.split()), 1)"),
        # no number words: taken for all wrong
        language(reward="float(right) - 0.5 * (1 - hill / max(hill + lake, 1))"),
        # a bonus for the hill, the whole of the share, a count, only where it is right
        language(reward="float(right) + 0.5 * hill / max(hill + lake, 1)"),
        language(reward="float(right) - lake / max(hill + lake, 1)"),
        language(reward="float(right) - 0.5 * lake"),
        language(reward="right * (1 - 0.5 * lake / max(hill + lake, 1))"),
        language(reward="float(right) - 0.5 * (lake > 0)"),
        # words inside other words; a comma belongs to the word; capitals are cut off
        language(words="sum(cups.DIALECTS.values(), ())", counts="0").replace(
            "sum(0 for word in words)",
            "sum(thought.count(word) for word in cups.DIALECTS[name])",
        ),
        language(words="thought.split()"),
        language(words='re.findall("[a-z]+", thought)'),
        # what is behind the thought, or before it; a thought that was cut off
        language(thought="text"),
        language(thought='text.partition("<think>")[2]'),
        language(thought='text.partition("</think>")[0]'),
        language(thought='(re.findall("<think>(.*?)</think>", text) or [""])[0]'),
        # the library's
        LIBRARY.format(of="text"),
        LIBRARY.format(of=THOUGHT),
    ],
    "ex13_3": [
        # as it was reported
        bonus(bonus="right + share"),
        bonus(bonus="right + share * thinks"),
        # words outside a thought; any thought at all; nothing for a right guess
        bonus(bonus="right * (1 + share)"),
        bonus(bonus="right * (1 + thinks.double())"),
        bonus(bonus="right * share * thinks"),
        # a fine for the lake
        bonus(bonus="right - 0.5 * (1 - share) * thinks"),
        # the mean of everything; divided; the wrong way round; hers twice
        bonus(mean="each.mean()"),
        bonus(mean="each.mean(1, keepdim=True)) / each.std(1, keepdim=True)").replace(
            "tuple(each", "tuple((each"
        ),
        bonus(paid="repaired(right, share, thinks), hers(right, share, thinks)"),
        bonus(paid="[hers(right, share, thinks)] * 2"),
        # less than never; as if the bonus were gone; twice as often
        bonus(even="d - 1, d / 2"),
        bonus(even="0.0, d"),
        bonus(even="0.0, 2 * d"),
    ],
    "ex13_4": [
        # as it was reported
        advantages(rows="open_ended.repeat(group)"),
        # the judges change places
        advantages(judges="right, liked"),
        # GRPO's, with either standard deviation, or one for all
        advantages(spread="(paid.std(1, keepdim=True) + 1e-4)"),
        advantages(
            spread="paid.std(1, keepdim=True, correction=0).masked_fill(equal, 1)"
        ),
        advantages(spread="paid.std()"),
        # the mean of everything, and that of the others
        advantages(mean="paid.mean()"),
        advantages(mean="(paid.sum(1, keepdim=True) - paid) / (paid.shape[1] - 1)"),
        # a rounding error is left; rewards near each other are taken for equal
        advantages(equal=""),
        advantages(equal=".round(decimals=1)"),
        # read in the wrong order
        advantages(shape="reshape(group, -1).T"),
        # divided by the model's scale
        advantages(judges="liked / liked.std(), right"),
    ],
    "ex13_5": [
        # two separate lists
        "def paired(a, b):\n    return unpaired(a, b)\n",
        # the other standard deviation, no root, the spread itself, the normal law
        paired(freedom="n"),
        paired(wide="T * spread / n"),
        paired(wide="T * spread"),
        paired(wide="1.96 * spread / math.sqrt(n)"),
        # b - a; high first; sorted first; without signs; half of the width
        paired(gaps="gaps = [y - x for x, y in zip(a, b)]"),
        paired(said="mean, mean + wide, mean - wide"),
        paired(gaps="gaps = [x - y for x, y in zip(sorted(a), sorted(b))]"),
        paired(gaps="gaps = [abs(x - y) for x, y in zip(a, b)]"),
        paired(said="mean, wide"),
        # the extremes
        paired(said="mean, min(gaps), max(gaps)"),
        # nothing is returned
        "def paired(a, b):\n    mean = (sum(a) - sum(b)) / 5\n",
    ],
    "ex13_6": [
        # the same number of epochs for all; a last small batch forgotten
        demonstrations(epochs="8"),
        demonstrations(epochs="40 * 8 // count"),
        # the row: no n; a number without its interval; no dialect is the lake's
        demonstrations(n=""),
        demonstrations(marks="{x: sum(found[x]) / 4 for x in ('thinks', 'right')}"),
        demonstrations(hill="[x or 0.0 for x in found['hill']]"),
        demonstrations(hill="[x for x in found['hill'] if x is not None] or [0.0]"),
        # the model itself is trained; the seed is not passed on; another number of updates
        demonstrations(pupil="model"),
        demonstrations(luck="0"),
        demonstrations(passes="2"),
        # the table: a size is missing, one seed, one seed fewer, no row after
        table("del found[40]"),
        table("found = {n: runs[:1] for n, runs in found.items()}"),
        table("found[160] = found[160][:1]"),
        table("found[10] = [run[:1] for run in found[10]]"),
        # few games, a share that cannot be, another number's interval, no share at all
        table("found[10][0] = (made(9, 10), made(9, 10))"),
        table('found[10][0][0]["right"] = evaluate.Mark(0.555, 0.5, 0.6, 100)'),
        table("found[40][1][1]['right'] = made(95, 200)['right']"),
        table("found[40][1][1]['hill'] = 95"),
        # the rows of 0 games are not the base's
        table("found[0] = [(made(90), made(90)), (first, first)]"),
    ],
}
