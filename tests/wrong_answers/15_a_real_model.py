"""Plausible mistakes in the exercises of chapter 15; each check must refuse each of them."""

LEARN = """
def learn(counts, pairs):
    words = {{word: list(word) for word in counts}}
    found = []
    for _ in range(pairs):
        seen = Counter()
        for word, parts in words.items():
            for pair in {places}:
                seen[pair] += {weight}
        if not seen:
            {empty}
        best = {best}
        found.append(best)
        for parts in words.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                    {after}
                i += 1
    return found
"""


def learn(
    places="zip(parts, parts[1:])",
    weight="counts[word]",
    empty="break",
    best="min(seen, key=lambda pair: (-seen[pair], pair))",
    after="pass",
):
    return LEARN.format(
        places=places, weight=weight, empty=empty, best=best, after=after
    )


LEARNT = """
def learnt(conversation):
    tokens, mask = [], []
    for role, text in conversation:
        own = role == "assistant"
        for part, mine in (
            (["<|im_start|>", role, "\\n"], {opening}),
            ([*text], {text}),
            (["<|im_end|>"], {end}),
            (["\\n"], {after}),
        ):
            tokens += part
            mask += [mine] * len(part)
    return tokens, mask
"""


def learnt(opening="False", text="own", end="own", after="False"):
    return LEARNT.format(opening=opening, text=text, end=end, after=after)


MIXED = """
def mixed(n, right, group):
    ways = math.comb(n, group)
    each = [{share} for c in right]
    return {mean}


def smallest(n, right, share):
    return next((g for g in {sizes} if {reached}), {otherwise})
"""


def mixed(
    share="1 - (math.comb(n - c, group) + math.comb(c, group)) / ways",
    mean="sum(each) / len(each)",
    sizes="range(2, n + 1)",
    reached="mixed(n, right, g) >= share",
    otherwise="None",
):
    return MIXED.format(
        share=share, mean=mean, sizes=sizes, reached=reached, otherwise=otherwise
    )


THIN = """
def start(rank, inputs, outputs, draw):
    like = {{"dtype": {dtype}}}
    a = {a}
    return a, {b}


def merged(weight, a, b, alpha):
    {merged}
"""


def thin(
    dtype="torch.float64",
    a="torch.randn(rank, inputs, generator=draw, **like) * inputs**-0.5",
    b="torch.zeros(outputs, rank, **like)",
    merged="return weight + alpha / len(a) * b @ a",
):
    return THIN.format(dtype=dtype, a=a, b=b, merged=merged)


PROJECT = """
def row(right):
    return {row}


def experiment():
    def made(right, n=200):
        return row([1.0] * right + [0.0] * (n - right))

    first = row(answered(base))
    found = {{
        "usual": [(first, made(150)), (first, made(160))],
        "changed": [(first, made(140)), (first, made(155))],
    }}
    {change}
    return found


def difference(found):
    pairs = zip(found["changed"], found["usual"], strict=True)
    return [{difference} for new, old in pairs]
"""


def project(
    row='{"n": len(right), "right": evaluate.mark(right)}',
    change="pass",
    difference='new[1]["right"].mean - old[1]["right"].mean',
):
    return PROJECT.format(row=row, change=change, difference=difference)


WRONG = {
    "ex15_2": [
        # a word counts once, however often it occurs
        learn(weight="1"),
        # a pair counts once in a word; ties as they come, or the last of them
        learn(places="{*zip(parts, parts[1:])}"),
        learn(best="max(seen, key=lambda pair: seen[pair])"),
        learn(best="max(seen, key=lambda pair: (seen[pair], pair))"),
        # the rarest
        learn(best="min(seen, key=lambda pair: (seen[pair], pair))"),
        # joined again with what was just joined is another pair; here one place is missed
        learn(after="break"),
        # no pair left: an error, or nothing at all
        learn(empty="return None"),
        learn(
            best="min(seen, key=lambda pair: (-seen[pair], pair), default=None)"
        ).replace("if not seen:\n            break\n", "pass\n"),
        # the caller's counts are changed
        learn().replace("words = {", "counts.update(counts | {'x': 1})\n    words = {"),
        # text of pieces instead of pairs
        learn().replace("found.append(best)", 'found.append("".join(best))'),
        # one pair for all calls
        "def learn(counts, pairs):\n    return [('l', 'o'), ('lo', 'w'), ('e', 'r')][:pairs]\n",
    ],
    "ex15_3": [
        # as it was reported
        "def learnt(conversation):\n    return his(conversation)\n",
        # without the end: it never stops
        learnt(end="False"),
        # with what comes after it: it goes on
        learnt(after="own"),
        # with the opening
        learnt(opening="own"),
        # everybody's words, everybody's ends
        learnt(text="True"),
        learnt(end="True"),
        learnt(text="True", end="True"),
        # whatever is not the user's
        learnt(text='role != "user"', end='role != "user"'),
        # found by its name wherever it stands
        """
def learnt(conversation):
    tokens, _ = his(conversation)
    mask, own = [], False
    for token in tokens:
        mask.append(own and token not in ("\\n", "<|im_start|>"))
        own = (own or token == "assistant") and token != "<|im_end|>"
    return tokens, mask
""",
        # only the last answer
        learnt().replace(
            "return tokens, mask",
            "last = len(mask) - 1 - mask[::-1].index(True) if any(mask) else 0\n"
            "    return tokens, [m and i > last - 3 for i, m in enumerate(mask)]",
        ),
    ],
    "ex15_4": [
        # plugged in: biased
        mixed(share="1 - (1 - c / n) ** group - (c / n) ** group"),
        # one right is enough: groups that are all right count as well
        mixed(share="1 - math.comb(n - c, group) / ways"),
        mixed(share="pass_at_k(n, c, group)"),
        # only all right is left out
        mixed(share="1 - math.comb(c, group) / ways"),
        # of all answers together
        """
def mixed(n, right, group):
    every, all_right = n * len(right), sum(right)
    ways = math.comb(every, group)
    return 1 - (math.comb(every - all_right, group) + math.comb(all_right, group)) / ways


def smallest(n, right, share):
    return next((g for g in range(2, n + 1) if mixed(n, right, g) >= share), None)
""",
        # a sum; the best question
        mixed(mean="sum(each)"),
        mixed(mean="max(each)"),
        # groups of one; not up to n; more than; the last size where none is
        mixed(sizes="range(1, n + 1)"),
        mixed(sizes="range(2, n // 2)"),
        mixed(sizes="range(n, 1, -1)"),
        mixed(reached="mixed(n, right, g) > share"),
        mixed(otherwise="n"),
        mixed(sizes="(2, 4, 8, 16)"),
    ],
    "ex15_5": [
        # as it was reported: both zero, and alpha without the rank
        thin(a="torch.zeros(rank, inputs, **like)"),
        thin(merged="return weight + alpha * b @ a"),
        # both drawn: the model has changed
        thin(b="torch.randn(outputs, rank, generator=draw, **like)"),
        # wide numbers; single precision; another luck each time
        thin(a="torch.randn(rank, inputs, generator=draw, **like)"),
        thin(a="torch.randn(rank, inputs, generator=draw, **like) * rank**-0.5"),
        thin(dtype="torch.float32"),
        thin(a="torch.randn(rank, inputs, **like) * inputs**-0.5"),
        # the wrong way round
        thin(
            a="torch.randn(inputs, rank, generator=draw, **like) * inputs**-0.5",
            b="torch.zeros(rank, outputs, **like)",
            merged="return weight + alpha / a.shape[1] * (a @ b).T",
        ),
        # the rank is always four; the number of outputs; the root of the rank
        thin(merged="return weight + alpha / 4 * b @ a"),
        thin(merged="return weight + alpha / len(b) * b @ a"),
        thin(merged="return weight + alpha / len(a) ** 0.5 * b @ a"),
        # into the weight itself
        thin(merged="weight += alpha / len(a) * b @ a\n    return weight"),
        # what is learnt alone
        thin(merged="return alpha / len(a) * b @ a"),
    ],
    "ex15_6": [
        # the row: no n, a number without its interval
        project(row='{"right": evaluate.mark(right)}'),
        project(row='{"n": len(right), "right": sum(right) / len(right)}'),
        project(row='{"n": 200, "right": evaluate.mark(right)}'),
        # the wrong way round; before instead of after; the mean of all
        project(difference='old[1]["right"].mean - new[1]["right"].mean'),
        project(difference='new[0]["right"].mean - old[0]["right"].mean'),
        project(difference='new[1]["right"].mean - new[0]["right"].mean'),
        # one seed; one seed fewer; no usual run; a row is missing
        project(change="found = {name: runs[:1] for name, runs in found.items()}"),
        project(change='found["usual"] = found["usual"][:1]'),
        project(change='del found["usual"]'),
        project(change='found["changed"] = [run[:1] for run in found["changed"]]'),
        # few questions; a share that cannot be; another start
        project(change='found["changed"][0] = (first, made(9, 10))'),
        project(
            change='found["changed"][0][1]["right"] = evaluate.Mark(0.5551, 0.5, 0.6, 200)'
        ),
        project(change='found["usual"][1] = (made(100), made(160))'),
    ],
}
