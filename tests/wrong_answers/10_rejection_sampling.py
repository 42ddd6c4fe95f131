"""Plausible mistakes in the exercises of chapter 10, by the exercise they belong to."""

QUOTA = """
def quota(rewards, k, most):
    taken, pairs = [0] * len(rewards), []
    order = rewards.flatten().sort(descending={best}, stable=True).indices.tolist()
    for prompt, answer in (divmod(i, {width}) for i in order{cut}):
        if taken[prompt] < {most} and len(pairs) < k:
            taken[prompt] += 1
            pairs.append((prompt, answer))
    return torch.tensor(pairs).reshape(-1, 2)
"""
RIGHT_QUOTA = {"best": "True", "width": "rewards.shape[1]", "cut": "", "most": "most"}

ROWS = """
def best_rows(scores, group):
    table = {table}
    return {rows}
"""

LESSONS = """
def lessons(right, finished):
    good = {good}
    prompts = {prompts}
    return torch.stack((prompts, {which}[prompts]), 1)
"""
SOME = "good.any(1).nonzero().squeeze(1)"

LOUD = """
def loudness(J, n):
    return {found}
"""

RUNS = "{n: [run(n, seed) for seed in range(3)] for n in (4, 16)}"
EXPERIMENT = """
run = lambda group, seed: (384 // group - 5 - seed, 3, (30 + group + seed) / 240)

def expected_kept(J, games, group):
    return {kept}


def experiment():
    return {runs}


def compare(one, other):
    gaps = {gaps}
    return {said}
"""
RIGHT_EXPERIMENT = {
    "kept": "games * (1 - (1 - J) ** group)",
    "runs": RUNS,
    "gaps": "[a - b for a, b in zip(one, other)]",
    "said": "sum(gaps) / len(gaps), min(gaps), max(gaps)",
}


def experiment(**wrong):
    """The experiment with something wrong in it; a round costs nothing."""
    return EXPERIMENT.format(**{**RIGHT_EXPERIMENT, **wrong})


WRONG = {
    "ex10_2": [
        # cuts to the k best first, then applies the quota
        QUOTA.format(**{**RIGHT_QUOTA, "cut": "[:k]"}),
        # one answer more than allowed
        QUOTA.format(**{**RIGHT_QUOTA, "most": "most + 1"}),
        # no quota
        QUOTA.format(**{**RIGHT_QUOTA, "most": "len(order)"}),
        # worst first
        QUOTA.format(**{**RIGHT_QUOTA, "best": "False"}),
        # prompts and answers change places
        QUOTA.format(**RIGHT_QUOTA).replace("(prompt, answer))", "(answer, prompt))"),
        # prompt by prompt instead of best first
        QUOTA.format(**RIGHT_QUOTA).replace("tensor(pairs)", "tensor(sorted(pairs))"),
    ],
    "ex10_3": [
        # as it was reported
        ROWS.format(
            table="scores.reshape(group, -1).T",
            rows="table.argmax(1) * len(table) + torch.arange(len(table))",
        ),
        # the table is read rightly, the rows are not
        ROWS.format(
            table="scores.reshape(-1, group)",
            rows="table.argmax(1) * len(table) + torch.arange(len(table))",
        ),
        # the other way round
        ROWS.format(
            table="scores.reshape(group, -1).T",
            rows="torch.arange(len(table)) * group + table.argmax(1)",
        ),
        # places within the group, not rows
        ROWS.format(table="scores.reshape(-1, group)", rows="table.argmax(1)"),
        # the best prompt for each answer
        ROWS.format(
            table="scores.reshape(-1, group)",
            rows="torch.arange(group) + group * table.argmax(0)",
        ),
        # of equals the last
        ROWS.format(
            table="scores.reshape(-1, group)",
            rows="torch.arange(len(table)) * group"
            " + group - 1 - table.flip(1).argmax(1)",
        ),
    ],
    "ex10_4": [
        # as it was reported
        "def lessons(right, finished):\n"
        "    return torch.stack((torch.arange(len(right)), right.argmax(1)), 1)",
        # leaves out the hopeless, believes what was cut off
        LESSONS.format(good="right > 0", prompts=SOME, which="good.int().argmax(1)"),
        # cut-off answers count as wrong, and the best of nothing is kept
        LESSONS.format(
            good="(right > 0) & finished",
            prompts="torch.arange(len(good))",
            which="good.int().argmax(1)",
        ),
        # the prompts are right, the answer is the first that is right, finished or not
        LESSONS.format(
            good="(right > 0) & finished", prompts=SOME, which="right.argmax(1)"
        ),
        # every good answer, not one a prompt
        "def lessons(right, finished):\n    return ((right > 0) & finished).nonzero()",
        # asks only that some answer was right and some answer finished
        LESSONS.format(
            good="(right > 0) & finished.any(1, keepdim=True)",
            prompts=SOME,
            which="good.int().argmax(1)",
        ),
    ],
    "ex10_5": [
        # cancellation, and 0 / 0
        LOUD.format(found="(1 - (1 - J) ** n) / J"),
        # the limit for large n
        LOUD.format(found="1 / J"),
        # the chance itself, pass@n
        LOUD.format(found="1 - (1 - J) ** n"),
        # 0 / 0 is repaired, the cancellation is not
        LOUD.format(
            found="torch.where(J > 0, (1 - (1 - J) ** n) / J.clamp(min=1e-300),"
            " float(n))"
        ),
        # a hopeless prompt is silent
        LOUD.format(
            found="torch.where(J > 0,"
            " -torch.expm1(n * torch.log1p(-J)) / J.clamp(min=1e-300), 0.0)"
        ),
    ],
    "ex10_6": [
        # counts answers, not games
        experiment(kept="games * group * J"),
        # the chance that none is right
        experiment(kept="games * (1 - J) ** group"),
        # two seeds, one of the sizes, unequal numbers
        experiment(runs="{n: [run(n, seed) for seed in range(2)] for n in (4, 16)}"),
        experiment(runs="{4: [run(4, seed) for seed in range(3)]}"),
        experiment(runs="{n: [run(n, seed) for seed in range(n)] for n in (4, 16)}"),
        # the seed, or the size, is not passed on; not measured
        experiment(runs="{n: [run(n, 0) for seed in range(3)] for n in (4, 16)}"),
        experiment(runs="{n: [run(16, seed) for seed in range(3)] for n in (4, 16)}"),
        experiment(
            runs="{n: [(5, 3, 0.1 + seed / 7) for seed in range(3)] for n in (4, 16)}"
        ),
        # the other way round; not paired; a sum
        experiment(gaps="[b - a for a, b in zip(one, other)]"),
        experiment(
            said="sum(gaps) / len(gaps), min(one) - max(other), max(one) - min(other)"
        ),
        experiment(said="sum(gaps), min(gaps), max(gaps)"),
    ],
}
