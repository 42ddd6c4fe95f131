"""Is the probability one, what is a token worth, what is a ranking worth?"""

import pytest
import torch

from labs import inspection
from lib.preference_data import PreferencePairs
from lib.sft import written
from lib.worlds.village.tasks import Task

FOX = Task("talk", 1, "Tell me about the fox.", "")


def test_a_pair_s_information_is_fisher_s(seeded):
    """For K = 2 the model is the true likelihood: information = mean p(1-p)d²."""
    gold = 1.1 * 2**0.5 * torch.randn(400_000, dtype=torch.float64, generator=seeded(7))
    d = gold / 0.5
    fisher = (torch.sigmoid(d) * torch.sigmoid(-d) * d**2).mean().item()
    got = inspection.information(2, generator=seeded(0))
    assert got == pytest.approx(fisher, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_ranking_is_worth_more_than_one_pair_and_less_than_all_of_its(seed, seeded):
    draw = seeded(seed)
    told = [inspection.information(k, generator=draw) for k in (2, 3, 4, 6)]
    worth = [x / told[0] for x in told]
    assert 2 < worth[1] < 3 and 3 < worth[2] < 6 and 5 < worth[3] < 15
    assert worth == sorted(worth)


def test_a_ranking_has_at_least_two_answers(seeded, refuses):
    with refuses("K: got 1, wanted an int of at least 2"):
        inspection.information(1, generator=seeded())


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
    gold = torch.randn(500, dtype=torch.float64, generator=seeded(1))
    lengths = torch.randint(5, 40, (500,), generator=seeded(2)).double()
    for b, c in ((2.0, 0.5), (0.5, -0.1), (1.0, 0.0)):
        score = 7 + b * gold + c * lengths
        price = inspection.token_price(score, gold, lengths)
        assert price == pytest.approx(c / b, abs=1e-9)
    longer = gold + lengths / 10  # gold itself likes length: no bias in following it
    assert inspection.token_price(3 * longer, longer, lengths) == pytest.approx(0)
    with pytest.raises(ValueError, match="gold"):
        inspection.token_price(gold, gold[1:], lengths)
    with pytest.raises(ValueError, match="lengths"):
        inspection.token_price(gold, gold, lengths[1:])


def test_annotators_are_asked_again_with_a_favour_for_length(seeded):
    n = 200
    short = written([FOX] * n, ["The fox is red."] * n)
    long = written([FOX] * n, ["The fox was here today at night."] * n)
    gold = torch.ones(n).double()
    pairs = PreferencePairs([FOX] * n, short, long, 5 * gold, -gold)
    shares = []
    for favour in (0.0, 5.0, -5.0):
        again = inspection.asked_again(pairs, favour=favour, generator=seeded(3))
        assert len(again) == n and again.asked == pairs.asked
        shares.append((again.chosen.lengths > short.lengths[0]).double().mean().item())
        assert again.chosen_gold.max() < 5, "gold is what it is, not what was passed on"
    assert shares[0] < 0.3 and shares[1] > 0.95 and shares[2] < 0.05
    with pytest.raises(ValueError, match="favour"):
        inspection.asked_again(pairs, favour=float("nan"), generator=seeded())
