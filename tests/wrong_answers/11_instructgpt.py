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

PREDICTION = """
def prediction():
    return {{"first proxy": {first}, "kl": {kl}, "penalty": {penalty}}}
"""
SEEN = {"first": "0", "kl": "-1", "penalty": "1"}

VALIDATION = """
def validation_loss(model, shown):
    lost, tokens, each = 0.0, 0, []
    for rows in torch.arange(len(shown)).tensor_split(2):
        part = shown.rows(rows)
        with torch.no_grad():
            logps = model(part.states).log_softmax(-1)
        own = logps.gather(-1, part.actions.unsqueeze(-1)).squeeze(-1)
        mask = {mask}
        lost -= own[mask].sum().item()
        tokens += int(mask.sum())
        each.append({each})
    return {found}
"""
HELD_OUT = {
    "mask": "part.mask",
    "each": "-own[mask].mean().item()",
    "found": "lost / tokens",
}

WRONG = {
    "ex11_2": [
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
        "def critic_of(judge):\n    return judge",
        # another object, the same weights
        "def critic_of(judge):\n    return copy.copy(judge)",
        # the trunk's copy under a head of zeros
        "def critic_of(judge):\n    return reward_model.RewardModel(judge.trunk)",
        # a head that both of them use
        "def critic_of(judge):\n"
        "    critic = reward_model.RewardModel(judge.trunk)\n"
        "    critic.head = judge.head\n"
        "    return critic",
        # a copy of the head on the judge's own trunk
        "def critic_of(judge):\n"
        "    critic = copy.deepcopy(judge)\n"
        "    critic.trunk = judge.trunk\n"
        "    return critic",
        # nothing shared, and nothing to be learnt
        "def critic_of(judge):\n    return copy.deepcopy(judge).requires_grad_(False)",
    ],
    "ex11_4": [
        # farther away than before
        PREDICTION.format(**{**SEEN, "kl": "1"}),
        # the penalty holds from the first answers on
        PREDICTION.format(**{**SEEN, "first": "-1"}),
        # nothing will be seen
        PREDICTION.format(first="0", kl="0", penalty="0"),
        # a hundred times the price, a hundredth of the way
        PREDICTION.format(**{**SEEN, "penalty": "0"}),
        # less KL costs less
        PREDICTION.format(**{**SEEN, "penalty": "-1"}),
        # not a prediction of everything
        'def prediction():\n    return {"kl": -1}',
        # how much, not which way
        PREDICTION.format(**{**SEEN, "kl": "-5.0"}),
    ],
    "ex11_5": [
        # the mean of the means of both halves
        VALIDATION.format(**{**HELD_OUT, "found": "sum(each) / len(each)"}),
        # questions and padding as well
        VALIDATION.format(**{**HELD_OUT, "mask": "torch.ones_like(part.mask)"}),
        # every row weighs the same
        VALIDATION.format(
            **{
                **HELD_OUT,
                "each": "(-(own * mask).sum(1) / mask.sum(1)).sum().item()",
                "found": "sum(each) / len(shown)",
            }
        ),
        # the perplexity
        VALIDATION.format(
            **{**HELD_OUT, "found": "torch.tensor(lost / tokens).exp().item()"}
        ),
        # the log-likelihood, which is the other way up
        VALIDATION.format(**{**HELD_OUT, "found": "-lost / tokens"}),
        # a sum
        VALIDATION.format(**{**HELD_OUT, "found": "lost"}),
    ],
}
