"""Is the probability one, what is a token worth, and how far do annotators let anyone come?"""

import pytest
import torch

from labs import inspection
from lib.preference_data import PreferencePairs
from lib.sft import written
from lib.worlds.people import PEOPLE
from lib.worlds.talk import gold
from lib.worlds.task import Task

ADA = PEOPLE[0]
TASK = Task("talk", 1, f"Tell me about {ADA.name}.", "")
TRUE = f"{ADA.name} lives by the {ADA.home}."
LONG = f"{TRUE} I know {ADA.first} well."


def pairs(chosen, rejected):
    """Comparisons of written answers to one request."""
    asked = [TASK] * len(chosen)
    worth = [
        torch.tensor([gold(TASK, x) for x in side]).double()
        for side in (chosen, rejected)
    ]
    return PreferencePairs(
        asked, written(asked, chosen), written(asked, rejected), *worth
    )


def test_claims_and_what_came_true_group_by_group():
    log = torch.tensor([3.0, 3, 3, 3, 9, 9, 9, 9]).double().log()
    gap = log * torch.tensor([1, -1, 1, 1, -1, 1, 1, 1]).double()
    shuffled = gap[[7, 0, 4, 1, 2, 6, 3, 5]]
    claimed, true = inspection.calibration(shuffled, bins=2)
    assert claimed.tolist() == pytest.approx([0.75, 0.9])
    assert true.tolist() == [0.75, 0.75]
    claimed, true = inspection.calibration(torch.zeros(7).double(), bins=3)
    assert claimed.tolist() == [0.5] * 3 and true.tolist() == [0] * 3, "a tie is wrong"
    assert len(inspection.calibration(gap)[0]) == 6


def test_what_cannot_be_grouped_is_refused(refuses):
    with refuses("gap: got shape (1,), wanted (N,), N ≥ 2"):
        inspection.calibration(torch.zeros(1), bins=2)
    with refuses("gap: got shape (2, 2), wanted (N,), N ≥ 2"):
        inspection.calibration(torch.zeros(2, 2), bins=2)
    with refuses("gap: got nan at index (1,), wanted finite numbers"):
        inspection.calibration(torch.tensor([0.0, torch.nan]), bins=2)
    with refuses("bins: got 0, wanted an int of at least 1"):
        inspection.calibration(torch.zeros(2), bins=0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_a_factor_on_the_scores(factor, seeded):
    true = torch.randn(50_000, dtype=torch.float64, generator=seeded(1))
    u = torch.rand(50_000, dtype=torch.float64, generator=seeded(2))
    gap = torch.where(u < torch.sigmoid(true), true, -true)
    assert inspection.temperature(factor * gap) == pytest.approx(factor, rel=0.08)


def test_the_temperature_stays_on_its_grid():
    right = torch.full((10,), 5.0).double()
    assert inspection.temperature(right) == pytest.approx(0.1)
    assert inspection.temperature(-right) == pytest.approx(10**1.5)


def test_the_price_of_a_token_at_equal_gold(seeded):
    worth = torch.randn(500, dtype=torch.float64, generator=seeded(1))
    lengths = torch.randint(5, 40, (500,), generator=seeded(2)).double()
    for b, c in ((2.0, 0.5), (0.5, -0.1), (1.0, 0.0)):
        score = 7 + b * worth + c * lengths
        price = inspection.token_price(score, worth, lengths)
        assert price == pytest.approx(c / b, abs=1e-9)
    longer = worth + lengths / 10  # gold itself likes length: no bias in following it
    assert inspection.token_price(3 * longer, longer, lengths) == pytest.approx(0)
    with pytest.raises(ValueError, match="gold"):
        inspection.token_price(worth, worth[1:], lengths)
    with pytest.raises(ValueError, match="lengths"):
        inspection.token_price(worth, worth, lengths[1:])


def test_the_limits_are_those_of_the_panel_s_probabilities():
    lie = (
        f"{ADA.name} keeps a goat." if ADA.pet != "goat" else f"{ADA.name} keeps a pig."
    )
    some = pairs([TRUE, lie, TRUE], [LONG, TRUE, lie])
    p = inspection.probabilities(some)
    found = inspection.limits(some)
    by_gold = [
        p[0] if some.chosen_gold[0] > some.rejected_gold[0] else 0.5,
        1 - p[1],
        p[2],
    ]
    assert found["gold"] == pytest.approx(float(sum(by_gold)) / 3)
    assert found["best"] == pytest.approx(torch.maximum(p, 1 - p).mean().item())
    assert found["another"] == pytest.approx((p**2 + (1 - p) ** 2).mean().item())
    assert p[1] + p[2] == pytest.approx(1)
    assert found["best"] >= max(found["gold"], found["another"])


def test_people_in_a_hurry_take_the_longer_answer_in_so_many_cases():
    n = 400
    some = pairs([TRUE] * n, [LONG] * n)
    for share in (0.0, 0.3, 1.0):
        late = inspection.hurried(some, share=share, seed=1)
        longer = (late.chosen.lengths > late.rejected.lengths).double().mean()
        assert longer == pytest.approx(share, abs=0.07 * (0 < share < 1))
        assert (late.chosen_gold + late.rejected_gold).tolist() == pytest.approx(
            (some.chosen_gold + some.rejected_gold).tolist()
        )
    already = pairs([LONG] * 9, [TRUE] * 9)
    assert torch.equal(
        inspection.hurried(already, share=1.0, seed=1).chosen.actions,
        already.chosen.actions,
    )
    with pytest.raises(ValueError, match="share"):
        inspection.hurried(some, share=1.5, seed=1)


def test_a_choice_turned_round_swaps_texts_and_gold_and_nothing_else():
    some = pairs([TRUE, LONG], [LONG, TRUE])
    turned = inspection.swapped(some, torch.tensor([True, False]))
    assert turned.chosen_gold.tolist() == [some.rejected_gold[0], some.chosen_gold[1]]
    assert turned.chosen.lengths.tolist() == [
        some.rejected.lengths[0],
        some.chosen.lengths[1],
    ]
    assert turned.rejected.lengths.tolist() == [
        some.chosen.lengths[0],
        some.rejected.lengths[1],
    ]
    texts, worth = inspection.answers_of(some)
    assert len(texts) == 4
    assert worth.tolist() == [*some.chosen_gold.tolist(), *some.rejected_gold.tolist()]
