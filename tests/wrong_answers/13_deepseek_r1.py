"""Plausible mistakes in the exercises of chapter 13, by the exercise they belong to."""

FOLLOWED = """
def followed(terms, text):
    total, steps = terms[0], []
    for term in terms[1:]:
        steps.append(f"{{total}} + {{term}} = {{total + term}}.")
        total += term
    return {found}
"""

WORKED = """
def worked(text):
    step = r"\\d+ \\+ \\d+ = \\d+\\."
    found = re.{how}({whole}, text.strip())
    sums = re.findall(r"(\\d+) \\+ (\\d+) = (\\d+)", found[1]) if found else []
    return {verdict}
"""
WHOLE = 'rf"<think> ({step}(?: {step})*) </think> [^<>]+"'
TRUE = "all(int(a) + int(b) == int(c) for a, b, c in sums)"
FINE = {"how": "fullmatch", "whole": WHOLE, "verdict": f"bool(sums) and {TRUE}"}

ADVANTAGES = """
def advantages(open_ended, group, liked, right):
    rows = {rows}
    paid = torch.where(rows, {liked}, {right}).reshape({shape})
    centred = paid - paid.mean(1, keepdim=True)
    equal = (paid == paid[:, :1]).all(1, keepdim=True)
    return centred.masked_fill(equal, 0) / {spread}
"""
GROUPED = {
    "rows": "open_ended.repeat_interleave(group)",
    "liked": "liked",
    "right": "right",
    "shape": "-1, group",
    "spread": "paid.std(1, keepdim=True).masked_fill(equal, 1)",
}

SIGNS = """
def predicted():
    return {{"talk": "{talk}", "know": "{know}", "worked sum": "{sums}"}}
"""
MEASURED = {"talk": "-", "know": "-", "sums": "0"}

WRONG = {
    "ex13_2": [
        # the answer alone
        FOLLOWED.format(found='text.strip().endswith(f"</think> {total}")'),
        # any answer behind the right working
        FOLLOWED.format(found="' '.join(steps) in text"),
        # the last step only
        FOLLOWED.format(found='text.strip().endswith(f"{steps[-1]} </think> {total}")'),
        # not inside <think>
        FOLLOWED.format(
            found="text.replace('<think> ', '').replace('</think> ', '').strip()"
            " == f\"{' '.join(steps)} {total}\""
        ),
        # the space before an answer is held against it
        FOLLOWED.format(
            found="text == f\"<think> {' '.join(steps)} </think> {total}\""
        ),
    ],
    "ex13_3": [
        # as it was reported
        """
def worked(text):
    thought = text.partition("<think>")[2].partition("</think>")[0]
    steps = re.findall(r"(\\d+) \\+ (\\d+) = (\\d+)", thought)
    return all(int(a) + int(b) == int(c) for a, b, c in steps)
""",
        # not of nothing any more, but other words are still stepped over
        """
def worked(text):
    thought = text.partition("<think>")[2].partition("</think>")[0]
    steps = re.findall(r"(\\d+) \\+ (\\d+) = (\\d+)", thought)
    return bool(steps) and all(int(a) + int(b) == int(c) for a, b, c in steps)
""",
        # one true step is enough
        WORKED.format(**{**FINE, "verdict": TRUE.replace("all", "any", 1)}),
        # whatever follows the answer
        WORKED.format(**{**FINE, "how": "match", "whole": WHOLE.replace("[^<>]+", "")}),
        # one step only
        WORKED.format(**{**FINE, "whole": WHOLE.replace("(?: {step})*", "")}),
        # the form, and not the truth
        WORKED.format(**{**FINE, "verdict": "bool(sums)"}),
    ],
    "ex13_4": [
        # as it was reported
        ADVANTAGES.format(**{**GROUPED, "rows": "open_ended.repeat(group)"}),
        # the judges change places
        ADVANTAGES.format(**{**GROUPED, "liked": "right", "right": "liked"}),
        # one standard deviation for the whole batch
        ADVANTAGES.format(**{**GROUPED, "spread": "paid.std()"}),
        # the other standard deviation
        ADVANTAGES.format(
            **{
                **GROUPED,
                "spread": "paid.std(1, keepdim=True, correction=0).masked_fill(equal, 1)",
            }
        ),
        # nothing is done about groups that agree
        ADVANTAGES.format(**{**GROUPED, "spread": "paid.std(1, keepdim=True)"}),
        # read in the wrong order
        ADVANTAGES.format(**{**GROUPED, "shape": "group, -1"}).replace(
            ".reshape(group, -1)", ".reshape(group, -1).T"
        ),
        # the reward model is only centred
        ADVANTAGES.format(**{**GROUPED, "spread": "1"}),
    ],
    "ex13_5": [
        # fewer passes, worse at everything
        SIGNS.format(talk="+", know="+", sums="+"),
        # working a sum is what many passes are needed for
        SIGNS.format(**{**MEASURED, "sums": "+"}),
        # nothing moves
        SIGNS.format(talk="0", know="0", sums="0"),
        # talk alone is lost
        SIGNS.format(**{**MEASURED, "know": "0"}),
        # one is missing
        'def predicted():\n    return {"talk": "-", "know": "-"}\n',
    ],
}
