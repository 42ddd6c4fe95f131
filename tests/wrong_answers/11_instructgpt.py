"""Plausible mistakes in the exercises of chapter 11, by the exercise they belong to."""

RANKING = """
def ranking_loss(scores, sizes):
    place = torch.arange(scores.shape[1])
    real = place < sizes[:, None]
    filled = scores.where(real, {padding})
    gap = {gap}
    pair = (real.unsqueeze(2) & real.unsqueeze(1)).triu({first})
    lost = -torch.nn.functional.logsigmoid(gap) * pair
    return {mean}
"""
RIGHT = {
    "padding": "0.0",
    "gap": "filled.unsqueeze(2) - filled.unsqueeze(1)",
    "first": "1",
    "mean": "(lost.sum((1, 2)) / pair.sum((1, 2))).mean()",
}

LABELLED = """
def labelled(runs, sft_old_text):
    order = range(len(runs))
    forgot = {forgot}
    far = {far}
    found = {{forgot: "no old text", far: "no KL penalty"}}
    return [found.get(i, "the recipe") for i in order]
"""
TOLD = {
    "forgot": 'max(order, key=lambda i: runs[i]["old text"])',
    "far": 'max((i for i in order if i != forgot), key=lambda i: runs[i]["kl"])',
}

RANKED = """
def ranked_with(writer, k):
    rankings = lab.ranked(writer, seed=0, count={count}, k=k)
    before, lab.PROMPTS = lab.PROMPTS, {prompts}
    model, history = lab.reward_model(writer, rankings, seed=0)
    lab.PROMPTS = {after}
    prompts = len(rankings)
    return model, prompts, {pairs}, 16 // k
"""
AFFORDED = {
    "count": "240 // k",
    "prompts": "16 // k",
    "after": "before",
    "pairs": "prompts * comb(k, 2)",
}

WRONG = {
    "ex11_2": [
        # the library's, which knows one length only
        "def ranking_loss(scores, sizes):\n"
        "    from lib.losses.reward import k_wise\n"
        "    return k_wise(scores)[0]",
        # the mean over all pairs: long rankings weigh more
        RANKING.format(**{**RIGHT, "mean": "lost.sum() / pair.sum()"}),
        # a sum over the pairs of a prompt
        RANKING.format(**{**RIGHT, "mean": "lost.sum((1, 2)).mean()"}),
        # the worse one should win
        RANKING.format(**{**RIGHT, "gap": "filled.unsqueeze(1) - filled.unsqueeze(2)"}),
        # an answer is compared with itself as well
        RANKING.format(**{**RIGHT, "first": "0"}),
        # padding counts as answers
        RANKING.format(**RIGHT).replace("sizes[:, None]", "0 * sizes[:, None] + 9"),
        # garbage behind the ranking gets into the sum
        RANKING.format(**RIGHT).replace(
            "filled = scores.where(real, 0.0)", "filled = scores"
        ),
        # neighbours only
        "def ranking_loss(scores, sizes):\n"
        "    gap = scores[:, :-1] - scores[:, 1:]\n"
        "    real = torch.arange(1, scores.shape[1]) < sizes[:, None]\n"
        "    lost = -torch.nn.functional.logsigmoid(gap.where(real, 0.0)) * real\n"
        "    return (lost.sum(1) / real.sum(1)).mean()",
    ],
    "ex11_3": [
        # as it was reported
        "def critic_of(judge):\n    return judge.requires_grad_(True)",
        # another object, the same weights
        "def critic_of(judge):\n    return copy.copy(judge).requires_grad_(True)",
        # a copy that stays frozen
        "def critic_of(judge):\n    return copy.deepcopy(judge)",
        # the reader of surprise learns as well
        "def critic_of(judge):\n    return copy.deepcopy(judge).requires_grad_(True)",
        # the trunk's copy under a head of zeros
        "def critic_of(judge):\n    return reward_model.SurprisalRewardModel(judge.trunk)",
        # a copy of the head on the judge's own trunk
        "def critic_of(judge):\n"
        "    critic = copy.deepcopy(judge).requires_grad_(True)\n"
        "    critic.first.requires_grad_(False)\n"
        "    critic.trunk = judge.trunk.requires_grad_(True)\n"
        "    return critic",
    ],
    "ex11_4": [
        # the other way round
        LABELLED.format(**{**TOLD, "forgot": TOLD["forgot"].replace("max", "min")}),
        # the farthest is the recipe
        LABELLED.format(**{**TOLD, "far": TOLD["far"].replace("max", "min")}),
        # in the order in which they came
        "def labelled(runs, sft_old_text):\n"
        '    return ["the recipe", "no KL penalty", "no old text"]',
        # one name for all
        'def labelled(runs, sft_old_text):\n    return ["the recipe"] * 3',
    ],
    "ex11_5": [
        # as many rankings, whatever K is
        RANKED.format(**{**AFFORDED, "count": "60"}),
        # the library's batch: other numbers of answers in an update
        RANKED.format(**{**AFFORDED, "prompts": "lab.PROMPTS"}),
        # the setting is left as it was changed
        RANKED.format(**{**AFFORDED, "after": "lab.PROMPTS"}),
        # ordered pairs
        RANKED.format(**{**AFFORDED, "pairs": "prompts * k * (k - 1)"}),
    ],
}
