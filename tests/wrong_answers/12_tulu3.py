"""Plausible mistakes in the exercises of chapter 12, by the exercise they belong to."""

BETA = """
def tuned_beta(J, budget):
    if {free}:
        return 0.0

    def spent(beta):
        odds = torch.logit(J) + {gain}
        now, not_now = torch.sigmoid(odds), torch.sigmoid(-odds)
        up, down = (torch.nn.functional.logsigmoid(x) for x in (odds, -odds))
        each = now * (up - J.log()) + not_now * (down - torch.log1p(-J))
        return {spent}

    low, high = 1e-3, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if {more} else (low, middle)
    return high
"""
RIGHT_BETA = {
    "free": "-J.log().mean() <= budget",
    "gain": "1 / beta",
    "spent": "each.mean()",
    "more": "spent(middle) > budget",
}

FORM = """
def repaired(task, answer):
    from lib.worlds.language import FIRST_NAMES

    text = answer.text.strip()
    if {cut}:
        return 0.0
    said = {sentences}
    if {short} or {same}:
        return 0.0
    others = {others}
    return float(not others & set(re.findall("[a-z]+", text.lower())))
"""
RIGHT_FORM = {
    "cut": 'not answer.finished or not text.endswith(".")',
    "sentences": '[" ".join(s.lower().split()) for s in text.split(".")[:-1]]',
    "short": "any(len(s.split()) < 3 for s in said)",
    "same": "len(set(said)) < max(4, len(said))",
    "others": "{n.lower() for n in FIRST_NAMES}"
    " - {person_in(task.request).first.lower()}",
}

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
        # the budget of each prompt, not of their mean
        BETA.format(**{**RIGHT_BETA, "spent": "each.max()"}),
        # the sum over prompts
        BETA.format(**{**RIGHT_BETA, "spent": "each.sum()"}),
        # a penalty even where none is needed
        BETA.format(**{**RIGHT_BETA, "free": "False"}),
        # the odds grow with beta
        BETA.format(**{**RIGHT_BETA, "gain": "beta"}),
        # the chance of being right grows by a factor, not the odds
        BETA.format(**{**RIGHT_BETA, "gain": "torch.log1p(1 / torch.tensor(beta))"}),
        # KL in the other direction
        BETA.format(
            **{
                **RIGHT_BETA,
                "spent": "(J * (J.log() - up) + (1 - J) * (torch.log1p(-J) - down))"
                ".mean()",
            }
        ),
    ],
    "ex12_3": [
        # the chapter's verifier
        "def repaired(task, answer):\n    return lab.long_enough(task, answer)\n",
        # cut-off answers count
        FORM.format(**{**RIGHT_FORM, "cut": "False"}),
        # four sentences, whatever they are
        FORM.format(**{**RIGHT_FORM, "same": "len(said) < 4"}),
        # four different ones are enough, the rest may repeat
        FORM.format(**{**RIGHT_FORM, "same": "len(set(said)) < 4"}),
        # capitals and spaces make another sentence
        FORM.format(**{**RIGHT_FORM, "sentences": 'text.split(".")[:-1]'}),
        # a word is a sentence
        FORM.format(**{**RIGHT_FORM, "short": "False"}),
        # somebody else is as good
        FORM.format(**{**RIGHT_FORM, "others": "set()"}),
        # the person of the example only
        FORM.format(
            **{
                **RIGHT_FORM,
                "others": '{n.lower() for n in FIRST_NAMES} - {"ada"}',
            }
        ),
        # true facts only
        "def repaired(task, answer):\n"
        "    return float(tasks.gold(task, answer.text, finished=answer.finished) > 2)\n",
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
