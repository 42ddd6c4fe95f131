"""What chapter 10 claims: selection is a policy gradient; who is selected is all of it."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from labs import rejection_sampling as lab
from lib import evaluate, kl, rejection
from lib.losses.policy_gradient import reinforce
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.sft import sft_loss
from lib.worlds import exact
from lib.worlds.language import TOKENIZER
from lib.worlds.tasks import tasks

RUNS = lab.RECORD.read()["runs"]
TINY = Config(
    vocabulary=len(TOKENIZER), context=128, layers=1, width=16, heads=2, hidden=16
)


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def small_world(draw):
    """15 answers of up to three tokens and a random policy of them."""
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)
    return policy, exact.completion_logps(policy, every)


def imitating(law, logps, policy):
    return exact.gradient((law.detach() * logps).sum(), policy)


# ------------------------------------------------------------------ selection as a law


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_what_counting_all_n_tuples_says(n, seeded):
    draw = seeded(n)
    ref = torch.randn(4, dtype=torch.float64, generator=draw).log_softmax(0)
    worth = torch.tensor([0.0, 2.0, 1.0, 2.0]).double()  # a tie at the top
    shares = torch.zeros(4, dtype=torch.float64)
    for drawn in torch.cartesian_prod(*[torch.arange(4)] * n).reshape(-1, n):
        best = drawn[worth[drawn] == worth[drawn].max()]
        each = (ref[drawn].sum().exp() / len(best)).expand(len(best))
        shares.index_add_(0, best, each)
    law = kl.best_of_n_policy(ref, worth, n).exp()
    assert_close(law, shares, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 8), (16, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_perfect_rounds_compound(n, m, seed, seeded):
    draw = seeded(seed)
    ref = torch.randn(9, dtype=torch.float64, generator=draw).log_softmax(0)
    worth = torch.randint(4, (9,), generator=draw).double()
    twice = kl.best_of_n_policy(kl.best_of_n_policy(ref, worth, n), worth, m)
    once = kl.best_of_n_policy(ref, worth, n * m)
    assert_close(twice.exp(), once.exp(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_imitating_right_answers_is_the_policy_gradient_and_one_each_is_max_rl(
    seed, seeded
):
    draw = seeded(seed)
    policy, logps = small_world(draw)
    right = (torch.rand(len(logps), generator=draw) < 0.3).double()
    right[0] = 1
    J = exact.expected(right, logps)
    slope = exact.gradient(J, policy)
    every = imitating(right * logps.exp() / J, logps, policy)
    assert_close(every, slope / J.detach(), rtol=0, atol=1e-12)
    for n in (1, 2, 8, 64):
        law = kl.best_of_n_policy(logps.detach(), right, n).exp() * right
        passed = sum((1 - (1 - J) ** k) / k for k in range(1, n + 1))  # pass@k / k
        want = exact.gradient(passed, policy)
        assert_close(imitating(law, logps, policy), want, rtol=0, atol=1e-12)
        loud = (1 - (1 - J) ** n) / J
        assert_close(want, slope * loud.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_imitating_the_best_of_two_climbs_the_win_rate_against_oneself(seed, seeded):
    draw = seeded(seed)
    policy, logps = small_world(draw)
    worth = torch.randint(5, (len(logps),), generator=draw).double()  # with ties
    beats = (worth[:, None] > worth).double() + 0.5 * (worth[:, None] == worth)
    wins = (beats * logps.exp().detach()).sum(1)
    law = kl.best_of_n_policy(logps.detach(), worth, 2).exp()
    want = exact.gradient(exact.expected(2 * wins, logps), policy)
    assert_close(imitating(law, logps, policy), want, rtol=0, atol=1e-12)


def test_on_samples_the_gradients_of_reinforce_and_of_imitation_agree():
    model, asked = tiny(), tasks("facts", count=6, seed=0)
    config = rejection.RejectionConfig(group=4, max_tokens=5)

    def odd(asked, rollout):
        return (rollout.actions.masked_fill(~rollout.mask, 0).sum(1) % 2).double()

    rollout, scores = rejection.sample_and_score(
        model, odd, asked, seed=0, config=config
    )
    shown = rejection.selected(rollout, rejection.every_passing(scores), group=4)
    logps = token_logps(model(rollout.states), rollout.actions)
    paid = reinforce(logps, scores.flatten(), rollout.mask)[0] * len(rollout)
    imitated = sft_loss(model, shown)[0] * shown.mask.sum()
    got, want = (exact.gradient(loss, model) for loss in (paid, imitated))
    assert 0 < len(shown) < len(rollout)
    assert_close(got, want, rtol=0, atol=1e-12)


def test_scores_read_in_the_wrong_order_select_answers_that_were_not_meant():
    draw = torch.Generator().manual_seed(0)
    scores = (torch.rand(200, 16, generator=draw) < 0.2).double()  # (P, G)
    pairs = rejection.every_passing(scores.flatten().reshape(16, 200).T)
    assert pairs.shape == rejection.every_passing(scores).shape  # nothing looks wrong
    kept = scores[pairs[:, 0], pairs[:, 1]].mean()
    assert abs(kept - scores.mean()) < 0.05  # as many right ones as at random


def test_on_a_verifiers_ties_the_overall_selection_takes_the_first_prompts():
    scores = torch.tensor([[1.0, 1, 1], [0, 1, 0], [0, 1, 1]])
    assert lab.overall(scores).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert lab.one_right(scores).tolist() == [[0, 0], [1, 1], [2, 1]]
    assert len(lab.overall(scores * 0)) == len(lab.one_right(scores * 0)) == 0
    right = rejection.every_passing(scores).tolist()
    some = lab.overall_shuffled(scores).tolist()
    assert len(some) == 3 and all(pair in right for pair in some)
    assert len({tuple(pair) for pair in some}) == 3
    assert lab.overall_shuffled(scores * 0).shape == (0, 2)


def test_of_right_answers_that_tie_any_may_be_kept_and_only_right_ones():
    scores = torch.zeros(60, 16, dtype=torch.float64)
    scores[:, :8] = 1  # each question has eight right answers
    first, mixed = lab.overall(scores), lab.overall_shuffled(scores)
    assert len(first) == len(mixed) == 60
    assert len({tuple(pair) for pair in mixed.tolist()}) == 60
    assert bool((scores[mixed[:, 0], mixed[:, 1]] == 1).all())
    assert len(first[:, 0].unique()) == 8  # in index order seven questions and a half
    assert len(mixed[:, 0].unique()) > 25


def test_the_control_keeps_as_many_as_are_right_and_never_looks_which():
    scores = torch.zeros(6, 4)
    scores[:2, :3] = 1
    pairs = lab.at_random(scores)
    assert len(pairs) == 6 and len({tuple(pair) for pair in pairs.tolist()}) == 6
    assert torch.equal(pairs, lab.at_random(scores.flip(0)))


def test_a_control_has_the_mean_of_the_matrix_over_all_its_draws():
    matrix = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator())
    rows = [sum(row) / 3 for row in itertools.product(*matrix.tolist())]
    some = [sum(x) / 5 for x in itertools.combinations(matrix.flatten().tolist(), 5)]
    for means in (rows, some):
        assert sum(means) / len(means) == pytest.approx(matrix.mean().item(), abs=1e-12)


def test_three_ideal_rounds_gain_less_each_where_the_world_has_room_for_them():
    fine = torch.linspace(-6, 6, 241, dtype=torch.float64)
    curve = torch.log_softmax(-fine.square() / 2, 0)
    gain = [
        (kl.best_of_n_policy(curve, fine, 16**t).exp() * fine).sum().item()
        for t in (1, 2, 3)
    ]
    assert gain == [pytest.approx(x, abs=0.005) for x in (1.766, 2.827, 3.626)]


def test_what_is_imitated_in_the_forward_kl_is_the_laws_mean_and_spread():
    """Of bells, the one with the law's first two moments is nearest to it."""
    x = torch.arange(21, dtype=torch.float64) / 10 - 1
    law = torch.softmax(torch.sin(7 * x), 0)
    weights = torch.zeros(2, dtype=torch.float64)
    powers = torch.stack((x, x**2))  # (2, 21)
    for _ in range(50):  # Newton: the slope is a difference of moments
        p = torch.softmax(weights @ powers, 0)
        spread = (powers * p) @ powers.T - torch.outer(powers @ p, powers @ p)
        weights = weights + torch.linalg.solve(spread, powers @ (law - p))
    best = torch.log_softmax(weights @ powers, 0)
    assert_close(powers @ best.exp(), powers @ law, rtol=0, atol=1e-10)
    near = kl.exact_kl(law.log(), best)
    for step in torch.eye(2).double() * 0.01:
        for other in (weights + step, weights - step):
            assert near < kl.exact_kl(law.log(), torch.log_softmax(other @ powers, 0))


# ------------------------------------------------------------------------ the exams


def test_the_exam_of_games_has_240_distinct_tasks_that_are_judged_one_by_one():
    found = lab.examined(tiny())
    assert found["each"].shape == (240,) and set(found["each"].tolist()) <= {0, 1}
    assert found["right"] == found["each"].double().mean()
    asked = [t for n in (3, 4, 5) for t in evaluate.exam("cups", level=n, count=80)]
    assert len({task.request for task in asked}) == 240


@pytest.mark.parametrize("skill", ["facts", "talk"])
def test_what_is_practised_is_distinct_and_of_training(skill):
    asked = {task.request for task in lab.distinct(skill, 200, seed=0)}
    assert len(asked) == 200
    assert not asked & {task.request for task in evaluate.exam(skill)}
    assert asked != {task.request for task in lab.distinct(skill, 200, seed=1)}


# ------------------------------------------------------------------------ the record


def looks(arm, what="right"):
    runs = RUNS["games"].values()
    found = [[look[what] for look in run[arm]["looks"]] for run in runs]
    return torch.tensor(found, dtype=torch.float64)


def test_the_record_holds_every_arm_on_every_base():
    assert {name: len(each) for name, each in RUNS.items()} == {
        "sweep": 1,
        "games": 5,
        "facts": 5,
        "talk": 5,
    }
    for run in RUNS["games"].values():
        assert {*run} == {"before", "RL", *lab.SELECTIONS}
    for arm in ("RL", *lab.SELECTIONS):
        assert looks(arm).shape == (5, lab.ROUNDS + 1)
        assert looks(arm, "each").shape == (5, lab.ROUNDS + 1, 240)
        assert_close(looks(arm, "each").mean(2), looks(arm), rtol=0, atol=1e-4)
        assert_close(looks(arm)[:, 0], looks("RL")[:, 0], rtol=0, atol=0)


def test_both_learn_from_as_many_answers():
    answers = lab.ROUNDS * lab.GAMES * lab.GROUP
    assert answers == lab.UPDATES * lab.r1_zero.PROMPTS * lab.r1_zero.GROUP == 3072


def test_rounds_make_the_habit_of_thinking_on_every_base_and_the_control_does_not():
    assert looks("every right")[:, -1].min() > 0.95
    assert looks("every right", "thinks")[:, 0].max() < 0.12
    assert looks("every right", "thinks")[:, -1].min() > 0.98
    assert looks("at random")[:, -1].max() < 0.3
    first = [run["every right"]["kept"][0] for run in RUNS["games"].values()]
    assert first == [run["at random"]["kept"][0] for run in RUNS["games"].values()]


def test_at_the_best_of_the_sweep_rounds_and_reinforcement_learning_end_together():
    swept = RUNS["sweep"][str(lab.SWEEP)]
    for arm in ("every right", "RL"):
        end = {float(lr): run[arm]["looks"][-1]["right"] for lr, run in swept.items()}
        assert end[lab.LR] == max(end.values())
    gap = looks("every right")[:, -1] - looks("RL")[:, -1]
    assert gap.abs().max() < 0.05


def test_who_gets_into_the_data_decides_what_is_learnt():
    for run in RUNS["facts"].values():
        before = torch.tensor(run["before"])
        after = {
            n: torch.tensor(run[n]["after"]) for n in ("one right", "any", "overall")
        }
        for some in (before <= 1, before >= 0):
            one, any_, overall = (x[some].double().mean() for x in after.values())
            assert one > any_ > overall
        assert (
            run["one right"]["covered"][-1] > 0.9 > 0.1 > run["overall"]["covered"][-1]
        )
        easy = before >= 8
        assert after["overall"][easy].double().mean() < before[easy].double().mean()


def talked(judge, what):
    found = [run[judge][what] for run in RUNS["talk"].values()]
    return torch.tensor(found, dtype=torch.float64)


def test_the_better_judge_gains_more_on_every_base():
    gains = {n: talked(n, "best of") for n in ("gold", "1,200", "300")}
    gains = {n: x[:, -1] - x[:, 0] for n, x in gains.items()}
    assert (gains["gold"] > gains["1,200"]).all()
    assert (gains["1,200"] > gains["300"]).all()
    sure = {n: talked(n, "accuracy").mean() for n in gains}
    assert sure["gold"] > sure["1,200"] > sure["300"]


def test_a_judge_is_pleased_with_its_rounds_whatever_gold_says():
    for judge in ("1,200", "300"):
        for rounds in (run[judge]["rounds"] for run in RUNS["talk"].values()):
            assert rounds[-1]["judge"] > rounds[0]["judge"] + 0.3
    gold = [[x["gold"] for x in r["300"]["rounds"]] for r in RUNS["talk"].values()]
    gold = torch.tensor(gold, dtype=torch.float64)
    assert gold[:, -1].mean() < gold[:, 0].mean()


def test_imitation_keeps_a_part_of_the_gain_and_form_rather_than_facts():
    for run in RUNS["talk"].values():
        found = run["gold"]["imitated"]
        one, most = (found[f"best of {n}, 200 requests"] for n in (1, 16))
        new = [sum(x["new"]) / len(x["new"]) / 100 for x in (one, most)]
        share = (new[1] - new[0]) / (most["data"] - one["data"])
        assert 0.1 < share < 0.6  # of the gain of best-of-16
        assert most["practised"] > new[1]
