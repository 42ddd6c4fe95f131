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

TUNED = """
def times(before, after):
    return {times}

def sweep(rates, seeds):
    found, before = {{}}, old_loss(base)
    for rate in rates:
        found[rate] = []
        for seed in seeds:
            pupil = {pupil}
            instruct(pupil, it.demonstrations(64, seed={shown}), epochs=4, lr=rate,
                     seed={order})
            found[rate].append((exam(pupil), times(before, old_loss(pupil))))
    return found

def choose(found, most):
    right = {{rate: sum(sum(marks) / len(marks) for marks, _ in each) / len(each)
             for rate, each in found.items() if {allowed}}}
    return max({order_of}, key=right.get) {otherwise}
"""
FINE = {
    "times": "math.exp(after - before)",
    "pupil": "copy.deepcopy(base)",
    "shown": "seed",
    "order": "seed",
    "allowed": "all(worse <= most for _, worse in each)",
    "order_of": "sorted(right)",
    "otherwise": "if right else None",
}

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
    "ex7_6": [
        TUNED.format(**FINE | change)
        for change in (
            {"times": "after / before"},  # of losses
            {"times": "math.exp(before - after)"},
            {"allowed": "True"},  # by the exam alone
            # over the limit on one seed, not in the mean
            {"allowed": "sum(worse for _, worse in each) / len(each) <= most"},
            {"order_of": "sorted(right, reverse=True)"},  # of equals the highest
            {"otherwise": "if right else max(found)"},  # one even if none is allowed
            {"pupil": "base"},  # each run goes on from the one before
            {"shown": "0"},  # every seed the same demonstrations
            {"order": "0"},
        )
    ],
}
