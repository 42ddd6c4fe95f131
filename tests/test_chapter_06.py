"""What chapter 6 claims: gold peaks and falls, on every seed; and the control does not."""

import ast
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from labs import overoptimisation, proxies, toy_answers
from labs import overoptimisation_runs as runs
from lib import evaluate, pretrain
from lib.kl import best_of_n_kl_bound
from lib.sft import written
from lib.worlds import talk
from lib.worlds.annotators import PANEL, Annotators, believed
from lib.worlds.language import KINDS
from lib.worlds.people import person_in
from lib.worlds.talk import features
from tools import notebooks

SIZES = [2**k for k in range(13)]


def of_the_page(*names: str) -> dict[str, Callable]:
    """Functions that the chapter builds in view, as they stand there."""
    known = {"torch": torch, "toy_answers": toy_answers}
    for cell in notebooks.read(
        notebooks.ROOT / "notebooks/06_over_optimisation.ipynb"
    ).cells:
        if cell.cell_type == "code":
            for part in ast.parse(cell.source).body:
                if isinstance(part, ast.FunctionDef) and part.name in names:
                    exec(ast.unparse(part), known)
    return {name: known[name] for name in names}


PAGE = of_the_page("best_of", "climb", "fitted")
D = torch.tensor([best_of_n_kl_bound(n) for n in SIZES], dtype=torch.float64).sqrt()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_gold_turns_over_under_best_of_n_and_under_rl_while_the_proxy_rises(seed):
    proxy = proxies.taught(proxies.linear, 2000, seed=seed)
    rising, gold = overoptimisation.best_of_curves(proxy, SIZES, seed=100 + seed)
    peak, errors = overoptimisation.turnover(gold)
    assert 0 < peak < len(SIZES) - 1 and errors > 2
    assert (rising.mean(0).diff() > 0).all()

    path = PAGE["climb"](proxy, beta=0.0, seed=seed)
    exact = toy_answers.expected_gold(path)
    at = exact.argmax().item()
    assert 0 < at < len(path) - 1
    scores = proxy(path).detach()  # linear: E proxy(x) is proxy(E x)
    assert scores[-1] == scores.max()

    def sampled(mean: Tensor) -> Tensor:
        """Gold of what the policy writes in 16 blocks of 256 answers: (16,)."""
        x = mean + toy_answers.draw(4096, generator=seeded(seed))
        return toy_answers.gold(x).reshape(16, -1).mean(1)

    blocks = torch.stack([sampled(path[k]) for k in (0, at, -1)], 1)
    peak, errors = overoptimisation.turnover(blocks)
    assert peak == 1 and errors > 2
    assert blocks.mean(0)[1].item() == pytest.approx(exact[at].item(), abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_control_fits_better_than_anything_that_turns_and_does_not_turn(seed):
    proxy, smooth = proxies.control(seed)
    _, gold = overoptimisation.best_of_curves(proxy, SIZES, seed=seed, gold=smooth)
    mean = gold.mean(0)
    r2, peak = PAGE["fitted"](D[1:], (mean - mean[0])[1:], log=False)
    assert r2 > 0.999 and peak > 1.5 * D[-1]
    assert mean.argmax() == len(SIZES) - 1
    assert overoptimisation.turnover(gold)[1] < 2


@pytest.mark.parametrize("seed", range(5))
def test_of_two_proxies_of_equal_accuracy_one_turns_over_and_one_does_not(seed):
    stiff = proxies.taught(proxies.linear, 20_000, seed=seed)
    bends = proxies.taught(proxies.squares, 200, seed=seed)
    fresh = proxies.compare(20_000, generator=seeded(77))
    assert abs(proxies.accuracy(stiff, fresh) - proxies.accuracy(bends, fresh)) < 0.03
    curves = [
        overoptimisation.best_of_curves(proxy, SIZES, seed=seed)[1]
        for proxy in (stiff, bends)
    ]
    falls = [overoptimisation.turnover(gold)[1] for gold in curves]
    assert falls[0] > 2 > falls[1]
    assert curves[0].mean(0)[-1] < 0 and curves[1].mean(0)[-1] > 2


def test_plain_gradient_ascent_stopped_at_t_is_the_optimum_of_beta_one_over_t():
    """Both are t · w; so a penalised run of `climb` ends where ascent passes by."""
    w = torch.linspace(-1, 1, 8, dtype=torch.float64)
    mean = torch.zeros(8, dtype=torch.float64)
    for _ in range(50):
        mean = mean + 0.01 * w  # the gradient of E w·x
    path = PAGE["climb"](lambda x: x @ w, beta=2.0, seed=0, updates=200)
    assert (path[-100:].mean(0) - mean).abs().max() < 0.05
    assert torch.allclose(mean, w / 2)


# ------------------------------------------------------------- what the page builds


def test_the_pages_best_of_n_is_the_librarys(seeded):
    proxy, gold = torch.randn(2, 40, dtype=torch.float64, generator=seeded(0))
    got = torch.stack([PAGE["best_of"](proxy, gold, n) for n in (1, 3, 40)])
    torch.testing.assert_close(got, evaluate.best_of(proxy, gold, [1, 3, 40]))


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_penalised_climb_ends_at_the_policy_that_theory_names(beta):
    """E w·x - beta |μ|²/2 is greatest at μ = w / beta."""
    w = torch.tensor([1.5, -1, 0.5, 0, 0, 0, 0, 1], dtype=torch.float64)
    path = PAGE["climb"](lambda x: x @ w, beta=beta, seed=0, updates=250)
    assert path.shape == (251, 8) and path[0].abs().max() == 0
    assert (path[-100:].mean(0) - w / beta).abs().max() < 0.06


def test_a_reward_with_a_top_is_climbed_to_its_top():
    """Only answers of the *present* policy tell when to stop: |μ - top| has to vanish."""
    top = torch.tensor([1.5, -1, 0, 0, 0, 0, 0, 0]).double()
    path = PAGE["climb"](lambda x: -(x - top).square().sum(-1), 0.0, seed=0, lr=0.05)
    assert len(path) == 201
    assert (path[-50:].mean(0) - top).abs().max() < 0.1


def test_without_a_penalty_it_walks_on_at_the_learning_rate():
    w = torch.ones(8, dtype=torch.float64)
    path = PAGE["climb"](lambda x: x @ w, 0.0, seed=1, updates=50)
    assert (path[1].abs() - 0.02).abs().max() < 1e-6  # Adam's first step
    assert 0.7 < path[-1].mean() / (50 * 0.02) < 1.05
    assert torch.equal(PAGE["climb"](lambda x: x @ w, 0.0, seed=1, updates=50), path)
    flat = PAGE["climb"](lambda x: 0 * x[:, 0] + 0.3, 0.0, seed=0, updates=3)
    assert flat.abs().max() < 1e-6  # equal rewards teach nothing


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_of_the_form_is_fitted_exactly_and_its_maximum_is_found(log):
    d = torch.linspace(0.1, 4, 40, dtype=torch.float64)
    r2, peak = PAGE["fitted"](d, d * (2.0 - 0.8 * (d.log() if log else d)), log)
    assert r2 == pytest.approx(1)
    fine = torch.linspace(0.01, 6, 60_000, dtype=torch.float64)
    value = fine * (2.0 - 0.8 * (fine.log() if log else fine))
    assert fine[value.argmax()].item() == pytest.approx(peak, abs=1e-3)
    bent = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    columns = torch.stack((x, -x * (x.log() if log else x)), 1)
    error = bent - columns @ torch.linalg.pinv(columns) @ bent
    want = 1 - error.square().sum() / 2  # Σ (bent - 2)² = 2
    assert PAGE["fitted"](x, bent, log)[0] == pytest.approx(want.item())


# ------------------------------------------------------------- the valley's experiment

TASK = evaluate.exam("talk", count=1)[0]
WHO = person_in(TASK.request)
OTHER_PET = next(pet for pet in KINDS["pet"] if pet != WHO.pet)
OTHER_JOB = next(job for job in KINDS["job"] if job != WHO.job)
TRUE_PET, FALSE_PET = (f"{WHO.name} keeps a {pet}." for pet in (WHO.pet, OTHER_PET))
FALSE_JOB = f"{WHO.name} is a {OTHER_JOB}."
KIND = f"{WHO.name} is kind and wise. {WHO.first} is kind and wise."


@pytest.mark.parametrize("who", PANEL, ids=lambda who: who.name)
def test_an_annotator_who_believes_is_the_valleys_and_one_who_knows_differs_on_pets(
    who,
):
    for one, two in itertools.permutations((TRUE_PET, FALSE_PET, FALSE_JOB, KIND), 2):
        seen = [features(TASK, text) for text in (one, two)]
        believing = who.probability_of(*map(believed, seen))
        assert believing == pytest.approx(who.probability(TASK, one, two))
        knowing = who.probability_of(*map(runs.knows_pets, seen))
        assert (knowing == believing) == (FALSE_PET not in (one, two))


def test_both_panels_compare_the_same_answers_with_the_same_luck():
    asked = [TASK] * 300
    texts = [
        text
        for k in range(300)
        for text in ((FALSE_JOB, KIND), (FALSE_PET, KIND))[k % 2]
    ]
    rollout = written([TASK] * 600, texts)
    pairs, best = {}, {}
    for see in (believed, runs.knows_pets):
        pairs[see], best[see] = runs.annotated(asked, rollout, see=see, seed=1)
        assert 0.5 < best[see] < 1
    won = {
        see: torch.tensor(
            [a.text.strip() == KIND for a in evaluate.answers(found.chosen)]
        )
        for see, found in pairs.items()
    }
    jobs = torch.arange(300) % 2 == 0
    assert torch.equal(won[believed][jobs], won[runs.knows_pets][jobs])
    assert won[runs.knows_pets][~jobs].sum() > won[believed][~jobs].sum() + 30
    found = pairs[believed]
    both = torch.stack((found.chosen_gold, found.rejected_gold)).sort(0).values
    gold = torch.tensor([evaluate.gold(TASK, text) for text in texts]).double()
    torch.testing.assert_close(both.T, gold.reshape(300, 2).sort(1).values)
    assert not found.identical.any()


def test_the_labels_follow_the_probabilities_of_the_panel():
    asked, texts = [TASK] * 2000, [FALSE_PET, FALSE_JOB] * 2000
    found, best = runs.annotated(
        asked, written([TASK] * 4000, texts), see=believed, seed=0
    )
    share = (
        sum(a.text.strip() == FALSE_PET for a in evaluate.answers(found.chosen)) / 2000
    )
    want = Annotators().probability(TASK, FALSE_PET, FALSE_JOB)
    assert share == pytest.approx(want, abs=0.04)
    assert best == pytest.approx(max(want, 1 - want))


def test_what_is_counted_stands_in_its_column_row_by_row():
    rollout = written([TASK] * 4, [TRUE_PET, FALSE_PET, FALSE_JOB, KIND])
    found = runs.table(runs.counted([TASK, TASK], rollout)).T.tolist()
    assert dict(zip(runs.COUNTS, found)) == {
        "true": [1, 0, 0, 0],
        "false pets": [0, 1, 0, 0],
        "other false": [0, 0, 1, 0],
        "kind": [0, 0, 0, 4],
        "repeated": [0, 0, 0, 0],
        "astray": [0, 0, 0, 0],
        "cut": [0, 0, 0, 0],
        "words": [5, 5, 5, 11],
    }


def test_answers_that_differ_in_names_alone_have_one_wording():
    two = evaluate.exam("talk", count=2)
    people = [person_in(task.request) for task in two]
    said = [f"{p.name} has a duck. {p.first} is wise." for p in people]
    assert len(set(said)) == 2
    assert len({runs.wording(*each) for each in zip(two, said)}) == 1
    assert runs.wording(two[0], said[0]) != runs.wording(two[0], said[0] + " Well.")


@pytest.mark.parametrize("name", ["compared", "fresh"])
def test_two_answers_differ_and_stand_side_by_side_and_fresh_ones_are_of_test_people(
    name,
):
    asked, rollout = runs.two_answers(pretrain.blank(), count=6, name=name, seed=2)
    said = [answer.text for answer in evaluate.answers(rollout)]
    assert len(asked) == 6 and len(said) == 12
    assert all(one != two for one, two in zip(said[::2], said[1::2]))
    wanted = "test" if name == "fresh" else "train"
    assert {talk.split(task.request) for task in asked} == {wanted}
    states = rollout.states[:, : rollout.mask.long().argmax(1).min()]
    assert torch.equal(states[::2], states[1::2])  # of the same request


def test_the_record_has_an_exam_of_200_at_each_look_of_each_run():
    found = runs.RECORD.read()["runs"]
    assert {*found} == {*runs.RUNS}
    for name, each in found.items():
        assert [*each] == [str(seed) for seed in runs.SEEDS[name]]
        for run in each.values():
            if name == "best of n":
                assert torch.tensor(run["gold"]).shape == (200, len(runs.SIZES))
                continue
            assert [*run["looks"]] == [str(look) for look in runs.LOOKS]
            assert {len(look["gold"]) for look in run["looks"].values()} == {200}
            assert run["looks"]["0"]["kl"] == 0


def test_before_training_all_runs_of_a_base_are_the_same_model():
    found = runs.RECORD.read()["runs"]
    for seed in range(5):
        start = {
            name: found[name][str(seed)]["looks"]["0"]
            for name in ("beta 0.0", "beta 0.3", "beta 1.0", "knows pets")
        }
        assert len({tuple(look["gold"]) for look in start.values()}) == 1
        one = [sum(row[0] for row in found["best of n"][str(seed)]["gold"]) / 200]
        assert one[0] == pytest.approx(sum(start["beta 0.0"]["gold"]) / 200, abs=0.3)


# ------------------------------------------------------------------ more of the toy


def test_fewer_comparisons_and_less_accuracy_can_be_the_better_proxy():
    """Products of 50 comparisons against linear of 2,000: what the summary says."""
    fresh = proxies.compare(20_000, generator=seeded(77))
    right, gold = torch.zeros(2, 2, 3, dtype=torch.float64)
    for i, (kind, count) in enumerate([(proxies.products, 50), (proxies.linear, 2000)]):
        for seed in range(3):
            proxy = proxies.taught(kind, count, seed=50 + seed)
            right[i, seed] = proxies.accuracy(proxy, fresh)
            gold[i, seed] = overoptimisation.worth(proxy, seed=200 + seed)
    assert right.mean(1).tolist() == pytest.approx([0.64, 0.91], abs=0.006)
    assert gold.mean(1).tolist() == pytest.approx([0.59, -0.21], abs=0.006)
    assert (gold[0] > gold[1]).sum() == 2


@pytest.mark.parametrize("trial", range(3))
def test_an_ensemble_helps_against_variance_and_not_against_a_shared_error(trial):
    def gain(kind, count: int) -> float:
        """The lesser gain of mean and worst of five over what one is worth."""
        seeds = [1000 * trial + k for k in range(5)]
        five = [proxies.taught(kind, count, seed=seed) for seed in seeds]
        both = [proxies.ensemble(five, worst=worst) for worst in (False, True)]
        alone = [overoptimisation.worth(proxy, seed=trial) for proxy in five]
        together = min(overoptimisation.worth(proxy, seed=trial) for proxy in both)
        return together - sum(alone) / 5

    assert gain(proxies.products, 100) > 0.3 > gain(proxies.linear, 2000)
