"""Plausible mistakes in the exercises of chapter 12, by the exercise they belong to."""

PAIRS = """
def binarised(ratings, generator):
    means = {means}
    luck = torch.rand(means.shape, generator=generator)
    worse = {worse}
    prompts = {prompts}
    rejected = {rejected}
    return torch.stack((prompts, {chosen}[prompts], rejected[prompts]), 1)
"""
RIGHT_PAIRS = {
    "means": "ratings.double().mean(2)",
    "worse": "means < means.max(1, keepdim=True).values",
    "prompts": "worse.any(1).nonzero().squeeze(1)",
    "rejected": "luck.masked_fill(~worse, -1.0).argmax(1)",
    "chosen": "means.argmax(1)",
}

SIGNS = """
def predicted():
    return {signs}
"""

PIECES = """
def shares(pieces):
    tokens = sum(int(mask.sum()) for _, mask in pieces)
    return [{one} for logps, mask in pieces]
"""

CONTAINED = """
def contained(train, held_out, n):
    def grams(tokens, size):
        return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]

    def share(prompt, others):
        size = {size}
        seen = set().union(*(grams(other, size) for other in others))
        covered = {covered}
        return {matched} / {whole}

    def found(prompt):
        return {found}

    return sum(map(found, held_out)) / {out_of}
"""
RIGHT_CONTAINED = {
    "size": "min(n, len(prompt))",
    "covered": "{i for i, gram in enumerate(grams(prompt, size)) if gram in seen"
    " for i in range(i, i + size)}",
    "matched": "len(covered)",
    "whole": "len(prompt)",
    "found": "any(share(prompt, [other]) > 0.5 for other in train)",
    "out_of": "len(held_out)",
}

WRONG = {
    "ex12_2": [
        # any of the other three, though it may be as good
        PAIRS.format(
            **{
                **RIGHT_PAIRS,
                "rejected": "luck.scatter(1, means.argmax(1, keepdim=True), -1.0)"
                ".argmax(1)",
            }
        ),
        # always the worst
        PAIRS.format(**{**RIGHT_PAIRS, "rejected": "means.argmin(1)"}),
        # a pair of every prompt, also where nothing is better
        PAIRS.format(**{**RIGHT_PAIRS, "prompts": "torch.arange(len(means))"}),
        # the best aspect instead of the mean
        PAIRS.format(
            **{**RIGHT_PAIRS, "means": "ratings.double().max(2).values"},
        ),
        # the first that is worse
        PAIRS.format(**{**RIGHT_PAIRS, "rejected": "worse.int().argmax(1)"}),
        # of equals the last is chosen
        PAIRS.format(
            **{
                **RIGHT_PAIRS,
                "chosen": "(means.shape[1] - 1 - means.flip(1).argmax(1))",
            }
        ),
    ],
    "ex12_3": [
        # practice makes perfect, and nothing else changes
        SIGNS.format(signs='{"words": 1, "groups": 0, "others": 0}'),
        # what has been learned is learned: the other answers become likelier, too
        SIGNS.format(signs='{"words": 1, "groups": -1, "others": -1}'),
        # the more is right, the more there is to compare
        SIGNS.format(signs='{"words": 1, "groups": 1, "others": 1}'),
        # nothing can be learned without a penalty
        SIGNS.format(signs='{"words": -1, "groups": 0, "others": 1}'),
        # a line is missing
        SIGNS.format(signs='{"words": 1, "others": 1}'),
    ],
    "ex12_4": [
        # as it was reported
        PIECES.format(one="-(logps * mask).sum() / mask.sum() / len(pieces)"),
        # each row weighs the same
        PIECES.format(one="-(logps * mask).sum() / len(mask) / tokens * len(pieces)"),
        # divides by the padded size
        PIECES.format(one="-(logps * mask).sum() / sum(m.numel() for _, m in pieces)"),
        # the padding is learned, too
        PIECES.format(one="-logps.sum() / tokens"),
        # a sum: the same however it is cut, but not the mean
        PIECES.format(one="-(logps * mask).sum()"),
        # weighed by the piece's share of the tokens, by way of its own mean: 0 / 0
        PIECES.format(one="-(logps * mask).sum() / mask.sum() * (mask.sum() / tokens)"),
    ],
    "ex12_5": [
        # all training prompts together
        CONTAINED.format(
            **{**RIGHT_CONTAINED, "found": "share(prompt, train) > 0.5"},
        ),
        # half is enough
        CONTAINED.format(
            **{
                **RIGHT_CONTAINED,
                "found": "any(share(prompt, [other]) >= 0.5 for other in train)",
            }
        ),
        # counts n-grams, not tokens
        CONTAINED.format(
            **{
                **RIGHT_CONTAINED,
                "covered": "[g for g in grams(prompt, size) if g in seen]",
                "whole": "len(prompt)",
            }
        ),
        # a token in two n-grams counts twice
        CONTAINED.format(
            **{
                **RIGHT_CONTAINED,
                "covered": "[g for g in grams(prompt, size) if g in seen]",
                "matched": "size * len(covered)",
            }
        ),
        # a short prompt has no n-gram at all
        CONTAINED.format(**{**RIGHT_CONTAINED, "size": "n"}),
        # the share of the training prompts
        CONTAINED.format(**{**RIGHT_CONTAINED, "out_of": "len(train)"}),
    ],
}
