"""Plausible mistakes in the exercises on the village, by the exercise they belong to."""

NUCLEUS = """
def nucleus(probabilities, p):
    ranked, index = probabilities.sort(descending=True, stable=True)
    {before}
    kept = torch.zeros_like(probabilities)
    {keep}
    return {result}
"""
BEFORE = "before = ranked.cumsum(0) - ranked"
KEEP = "kept[index] = torch.where(before < p, ranked, 0)"

RECOMPUTE = """
def recompute(policy, tokens, temperature):
    logits = policy(tokens)
    return {result}
"""

LEARN = """
def to_learn(tokens, prompt_lengths, end):
    actions = tokens[:, 1:]
    place = torch.arange(1, tokens.shape[1])
    ends = actions == end
    ended = ends.cumsum(1) - ends.long()
    return {result}
"""

WRONG = {
    "exV_2": [
        # stops before p is reached
        NUCLEUS.format(
            before=BEFORE,
            keep="kept[index] = torch.where(before + ranked <= p, ranked, 0)",
            result="kept / kept.sum()",
        ),
        # not scaled
        NUCLEUS.format(before=BEFORE, keep=KEEP, result="kept"),
        # in the order of their probabilities
        NUCLEUS.format(
            before=BEFORE,
            keep="kept = torch.where(before < p, ranked, 0)",
            result="kept / kept.sum()",
        ),
        # one more than needed where p is met exactly
        NUCLEUS.format(
            before=BEFORE,
            keep=KEEP.replace("<", "<="),
            result="kept / kept.sum()",
        ),
        # keeps what is likelier than p: min-p's cousin
        NUCLEUS.format(
            before="pass",
            keep="kept = torch.where(probabilities >= 1 - p, probabilities, 0)",
            result="kept / kept.sum()",
        ),
    ],
    "exV_3": [
        # as it was reported
        RECOMPUTE.format(result="token_logps(logits, tokens)"),
        # the temperature, but not the shift
        RECOMPUTE.format(
            result="token_logps(logits, tokens, temperature=temperature)[:, 1:]"
        ),
        # the shift, but not the temperature
        RECOMPUTE.format(result="token_logps(logits[:, :-1], tokens[:, 1:])"),
        # shifted the wrong way
        RECOMPUTE.format(
            result="token_logps(logits[:, 1:], tokens[:, :-1], temperature=temperature)"
        ),
        # the temperature on the log-probabilities
        RECOMPUTE.format(
            result="token_logps(logits[:, :-1], tokens[:, 1:]) / temperature"
        ),
    ],
    "exV_4": [
        # as it was reported
        LEARN.format(result="actions != end"),
        # the prompt left out, the end still not trained
        LEARN.format(result="(place >= prompt_lengths[:, None]) & ~ends"),
        # the end trained, the prompt too
        LEARN.format(result="ended == 0"),
        # one off: the answer's first token left out
        LEARN.format(result="(place > prompt_lengths[:, None]) & (ended == 0)"),
        # all the padding trained
        LEARN.format(result="place >= prompt_lengths[:, None]"),
    ],
}
