"""Plausible mistakes in the exercises of chapter 7, by the exercise they belong to."""

MASK = """
def answer_mask(tokens, starts, lengths):
    place = torch.arange({first}, tokens.shape[1]{less})
    return {learned}
"""
ANSWER = "(place >= starts[:, None]) & (place < lengths[:, None])"

LEARNED = """
def learned(actions, starts, end=2):
    answer = torch.arange(actions.shape[1]) >= starts[:, None]
    return {found}
"""

PACKED = """
def may_see(document):
    return {seen}

def place(document):
    return {place}
"""
SAME = "(document.unsqueeze(2) == document.unsqueeze(1)).tril()"
REAL = "(document > 0).unsqueeze(2)"

PARTS = """
def accumulated(parts):
    return {loss}
"""

WRONG = {
    "ex7_2": [
        # no shift: the places of the states, not of the actions
        MASK.format(first=0, less=" - 1", learned=ANSWER),
        # learns the padding
        MASK.format(first=1, less="", learned="place >= starts[:, None]"),
        # learns the question
        MASK.format(first=1, less="", learned="place < lengths[:, None]"),
        # forgets the end
        MASK.format(
            first=1,
            less="",
            learned="(place >= starts[:, None]) & (place < lengths[:, None] - 1)",
        ),
        # forgets the first token of the answer
        MASK.format(
            first=1,
            less="",
            learned="(place > starts[:, None]) & (place < lengths[:, None])",
        ),
    ],
    "ex7_3": [
        # as it was reported
        LEARNED.format(found="answer & (actions != end)"),
        # learns the padding as well
        LEARNED.format(found="answer"),
        # the first end of the row, which may be an earlier turn's
        LEARNED.format(
            found="answer & ((actions == end).cumsum(1) - (actions == end).long() == 0)"
        ),
        # up to the first end, without it
        LEARNED.format(found="answer & (((actions == end) & answer).cumsum(1) == 0)"),
        # the last token of the row, if it is an end
        LEARNED.format(
            found="answer & ((actions != end)"
            " | (torch.arange(actions.shape[1]) == actions.shape[1] - 1))"
        ),
    ],
    "ex7_4": [
        # looks at its neighbours
        PACKED.format(
            seen="torch.ones(*document.shape, document.shape[1]).bool().tril()",
            place=f"{SAME}.sum(2) - 1",
        ),
        # looks ahead
        PACKED.format(
            seen="document.unsqueeze(2) == document.unsqueeze(1)",
            place=f"{SAME}.sum(2) - 1",
        ),
        # the padding looks at nothing
        PACKED.format(seen=f"{SAME} & {REAL}", place=f"{SAME}.sum(2) - 1"),
        # places count on
        PACKED.format(
            seen=SAME, place="torch.arange(document.shape[1]).expand(document.shape)"
        ),
        # places count from 1
        PACKED.format(seen=SAME, place=f"{SAME}.sum(2)"),
        # transposed
        PACKED.format(seen=f"{SAME}.mT", place=f"{SAME}.sum(2) - 1"),
    ],
    "ex7_5": [
        # as it was reported: a mean of means
        PARTS.format(
            loss="-sum(logps[mask].mean() for logps, mask in parts) / len(parts)"
        ),
        # a mean over rows
        PARTS.format(
            loss="-sum(logps[mask].sum() for logps, mask in parts)"
            " / sum(len(mask) for _, mask in parts)"
        ),
        # a sum
        PARTS.format(loss="-sum(logps[mask].sum() for logps, mask in parts)"),
        # padding counts as tokens
        PARTS.format(
            loss="-sum(logps[mask].sum() for logps, mask in parts)"
            " / sum(mask.numel() for _, mask in parts)"
        ),
        # the gradient is lost on the way
        PARTS.format(
            loss="torch.tensor(-sum(logps[mask].sum().item() for logps, mask in parts)"
            " / sum(mask.sum().item() for _, mask in parts), requires_grad=True)"
        ),
    ],
}
