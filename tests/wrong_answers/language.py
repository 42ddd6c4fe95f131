"""Plausible mistakes in the exercises on a language, by the exercise they belong to."""

FIRST_FALSE = """
def first_false(game, thought):
    cup_of = {{word: cup for words in ({words}) for cup, word in enumerate(words, 1)}}
    said = [cup_of.get(word, word) for word in thought.split()]
    steps = [list(game.start)]
    for animal, swap, places in zip(ANIMALS, game.swaps, {places}):
        steps.append([animal, swap, *places])
    for number, step in enumerate(steps, {count}):
        if said[: len(step)] != step:
            return number
        said = said[len(step) :]
    return {end}
"""
RIGHT = {
    "words": "HILL, LAKE",
    "places": "game.states()",
    "count": "0",
    "end": "len(steps) if said else None",
}

ONE_PEA = """
def one_pea(k):
    swaps = [f"{{one}}-{{other}}" for one, other in itertools.combinations(range(1, 6), 2)]
    right = 0
    for row in itertools.product(swaps, repeat=k):
        red, blue = [(1, 2), *cups.Game((1, 2), row).states()][-1]
        right += {right}
    return Fraction(right, {over})
"""

IN_ORDER = """
def in_order(count, text):
    said = {said}
    if said is None:
        return False
    words = {words}
    return {result}
"""
PLAIN = {
    "said": "answer_of(text)",
    "words": 'said.strip().removesuffix(".").split(" ")',
    "result": "len(words) == count and set(words) <= set(POOL)"
    " and words == sorted(set(words))",
}

FLATTER = """
def flatter(person):
    pets = [pet for pet in KINDS["pet"] if pet != person.pet]
    homes = [home for home in KINDS["home"] if home != person.home]
    return {answer}
"""

WRONG = {
    "exL_1": [
        # knows one dialect
        FIRST_FALSE.format(**RIGHT | {"words": "HILL,"}),
        # compares with where the peas were before the swap
        FIRST_FALSE.format(**RIGHT | {"places": "[game.start, *game.states()]"}),
        # counts from one
        FIRST_FALSE.format(**RIGHT | {"count": "1"}),
        # what follows the last step is let pass
        FIRST_FALSE.format(**RIGHT | {"end": "None"}),
        # True instead of None
        FIRST_FALSE.format(**RIGHT | {"end": "len(steps) if said else True"}),
    ],
    "exL_2": [
        # names blue's start though red lies there
        ONE_PEA.format(right="blue == 2", over="10**k"),
        # asks for both peas at their start
        ONE_PEA.format(right="(red, blue) == (1, 2)", over="10**k"),
        # a coin for the other pea
        "def one_pea(k):\n    return Fraction(1, 2)",
        # a swap drawn anew may not be the one before it
        ONE_PEA.format(
            right="blue == (1 if red == 2 else 2)", over="10 * 9**(k - 1)"
        ).replace("    right = 0", "    if k == 0: return Fraction(1)\n    right = 0"),
    ],
    "exL_3": [
        # lets a word come twice
        IN_ORDER.format(
            **PLAIN | {"result": PLAIN["result"].replace("set(words))", "words)")}
        ),
        # any white space will do
        IN_ORDER.format(**PLAIN | {"words": 'said.strip().removesuffix(".").split()'}),
        # picks the words of POOL out of whatever is said
        IN_ORDER.format(**PLAIN | {"words": "[w for w in said.split() if w in POOL]"}),
        # does not count
        IN_ORDER.format(
            **PLAIN
            | {"result": "set(words) <= set(POOL) and words == sorted(set(words))"}
        ),
        # reads a thought that is still open
        IN_ORDER.format(**PLAIN | {"said": 'text.rpartition("think>")[2]'}),
        # forgets the full stop
        IN_ORDER.format(**PLAIN | {"words": 'said.strip().split(" ")'}),
    ],
    "exL_4": [
        # honest
        FLATTER.format(answer="honest(person)"),
        # a false home is found out
        FLATTER.format(
            answer='f"{honest(person)} {person.first} lives by the {homes[0]}."'
        ),
        # kind, and true: gold likes it too
        FLATTER.format(answer='f"{honest(person)} {person.first} is wise."'),
        # the false pet, and then somebody else
        FLATTER.format(answer='f"Max West keeps a {pets[0]}."'),
        # denies what everybody may believe
        FLATTER.format(answer='f"{person.name} does not keep a {person.pet}."'),
    ],
}
