"""Plausible mistakes in the exercises on the small language model, by their exercise."""

LOOKS = """
def looks_ahead(model, tokens):
    before, found = model(tokens), []
    for t in range(tokens.shape[1] - 1):
        changed = tokens.clone()
        {change}
        if {moved}:
            found.append(t)
    return found
"""
CHANGE = "changed[:, t + 1 :] = (changed[:, t + 1 :] + 1) % 9"
MOVED = "not torch.equal(model(changed)[:, t], before[:, t])"

TURN = """
def turn_pair(x, place, speed):
    angle = torch.tensor({angle}, dtype=x.dtype)
    cos, sin = angle.cos(), angle.sin()
    one, other = x.unbind(-1)
    return torch.stack({turned}, -1)


def score_at(q, k, distance, speed):
    return {score}
"""
ANGLE = "place * speed"
TURNED = "(cos * one - sin * other, sin * one + cos * other)"
SCORE = "turn_pair(q, distance, speed) @ k"

NUCLEUS = """
def nucleus(probabilities, p):
    ranked, index = probabilities.sort(descending=True, stable=True)
    before = ranked.cumsum(0) - ranked
    kept = torch.zeros_like(probabilities)
    {keep}
    return {result}
"""
KEEP = "kept[index] = torch.where(before < p, ranked, 0)"

WITHOUT = """
def logits_without(part, model, tokens, document):
    T = tokens.shape[1]
    cos, sin = model.cos[:T], model.sin[:T]
    if part == "positions":
        cos, sin = {still}
    seen = document[:, :, None] == document[:, None]
    if part == "document mask":
        seen = torch.ones_like(seen)
    seen = {seen}
    x = model.embed(tokens)
    for block in model.blocks:
        if part != "attention":
            x = block.look(x, cos, sin, lambda q, k, v: attend(q, k, v, seen))
        if {think}:
            x = block.think(x)
    return model.logits({out})


def experiment():
    return {{part: [0.0] * 3 for part in PARTS}}
"""
GOOD = {
    "still": "torch.ones_like(cos), torch.zeros_like(sin)",
    "seen": "seen.tril()",
    "think": 'part != "MLP"',
    "out": "model.norm(x)",
}

WRONG = {
    "exM_1": [
        # changes the place's own token too: all are blamed
        LOOKS.format(change=CHANGE.replace("t + 1", "t"), moved=MOVED),
        # looks at all places, of which later ones may well move
        LOOKS.format(change=CHANGE, moved="not torch.equal(model(changed), before)"),
        # changes the last token only
        LOOKS.format(change="changed[:, -1] = (changed[:, -1] + 1) % 9", moved=MOVED),
        # changes the next token only
        LOOKS.format(
            change="changed[:, t + 1] = (changed[:, t + 1] + 1) % 9", moved=MOVED
        ),
        # a small leak passes
        LOOKS.format(
            change=CHANGE,
            moved="not torch.allclose(model(changed)[:, t], before[:, t])",
        ),
        # cuts the row off: another length is another question
        LOOKS.format(
            change="changed = changed[:, :1]", moved="t > 0 and " + MOVED
        ).replace("[:, t], before", "[:, -1], before"),
    ],
    "exM_2": [
        # clockwise
        TURN.format(
            angle=ANGLE,
            turned="(cos * one + sin * other, cos * other - sin * one)",
            score=SCORE,
        ),
        # the speed forgotten
        TURN.format(angle="float(place)", turned=TURNED, score=SCORE),
        # stretched as well
        TURN.format(angle=ANGLE, turned=f"({TURNED}[0], one + other)", score=SCORE),
        # the distance the wrong way round
        TURN.format(
            angle=ANGLE, turned=TURNED, score="turn_pair(k, distance, speed) @ q"
        ),
        # both turned
        TURN.format(
            angle=ANGLE,
            turned=TURNED,
            score="turn_pair(q, distance, speed) @ turn_pair(k, distance, speed)",
        ),
    ],
    "exM_3": [
        # stops before p is reached
        NUCLEUS.format(
            keep="kept[index] = torch.where(before + ranked <= p, ranked, 0)",
            result="kept / kept.sum()",
        ),
        # not scaled
        NUCLEUS.format(keep=KEEP, result="kept"),
        # in the order of their probabilities
        NUCLEUS.format(
            keep="kept = torch.where(before < p, ranked, 0)",
            result="kept / kept.sum()",
        ),
        # one more than needed where p is met exactly
        NUCLEUS.format(keep=KEEP.replace("<", "<="), result="kept / kept.sum()"),
    ],
    "exM_4": [
        # no place remembers that it must not look ahead
        WITHOUT.format(**{**GOOD, "seen": "seen"}),
        # the mask of documents is forgotten always
        WITHOUT.format(**{**GOOD, "seen": "torch.ones_like(seen).tril()"}),
        # a cosine of 0 is a turn, and loses half of each pair
        WITHOUT.format(
            **{
                **GOOD,
                "still": "torch.cos(torch.arange(T))[:, None, None, None] * cos, sin",
            }
        ),
        # thinks all the same
        WITHOUT.format(**{**GOOD, "think": "True"}),
        # the last norm forgotten
        WITHOUT.format(**{**GOOD, "out": "x"}),
        # the same losses from every seed
        WITHOUT.format(**GOOD),
    ],
}
