"""CartPole from preferences: films, answers and rewards by hand, then the bar."""

import math

import pytest
import torch
from torch.testing import assert_close

from labs import agents, cartpole_preferences
from labs.cartpole_preferences import FilmRewardModel
from lib.seeds import generator as stream
from lib.train import fit
from lib.worlds import cartpole
from lib.worlds.environment import World, play

T, F = True, False


def numbers(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


class Coin(torch.nn.Module):
    def forward(self, states):
        return torch.zeros(*states.shape[:-1], 2, dtype=states.dtype)


def clock(*deaths) -> World:
    """A state counts steps, four times over; row k ends when its count is deaths[k]."""
    ends = torch.tensor(deaths)

    def step(states, actions, generator):
        after = states + 1
        return after, states[:, 0] + 10, after[:, 0] >= ends

    return World(lambda batch, generator: numbers(*[[0] * 4] * batch), step, 99)


def reward_of(first, *, bias=0.0) -> FilmRewardModel:
    """A model whose raw reward is `first` · x + bias."""
    model = FilmRewardModel(torch.Generator().manual_seed(0))
    model.net = torch.nn.Linear(4, 1, dtype=torch.float64)
    with torch.no_grad():
        model.net.weight.copy_(numbers([first, 0, 0, 0]))
        model.net.bias.fill_(bias)
    return model


def pairs_of(chosen, rejected) -> torch.Tensor:
    """Pairs of films (N, 2, F, 4) from rows of x alone."""
    films = [
        torch.nn.functional.pad(numbers(*x)[..., None], (0, 3))
        for x in (chosen, rejected)
    ]
    return torch.stack(films, 1)


@pytest.fixture
def two():
    """One pair of two frames: x = 1 and 2 m, against 1.5 m and off the track."""
    return pairs_of([[1, 2]], [[1.5, 8]])


# ---------------------------------------------------------------- films


def test_a_film_runs_on_after_a_fall_and_shows_where_the_pole_lies(seeded):
    frames, returns = cartpole_preferences.film(
        Coin(), clock(3, 99), batch=2, generator=seeded(), length=6, every=2
    )
    # the first falls with its third step and lies at 3; frames are steps 1, 3, 5 (from 0)
    assert frames[..., 0].tolist() == [[1, 3, 3], [1, 3, 5]]
    assert (frames == frames[..., :1]).all()
    assert returns.tolist() == [10 + 11 + 12, 10 + 11 + 12 + 13 + 14 + 15]


def test_a_film_goes_on_when_all_have_fallen(seeded):
    frames, returns = cartpole_preferences.film(
        Coin(), clock(1, 2), batch=2, generator=seeded(), length=4, every=1
    )
    assert frames[..., 0].tolist() == [[0, 1, 1, 1], [0, 1, 2, 2]]


def test_a_film_is_400_steps_in_20_frames_unless_told_otherwise(seeded):
    frames, returns = cartpole_preferences.film(
        Coin(), clock(999), batch=1, generator=seeded()
    )
    assert frames[0, :, 0].tolist() == list(range(19, 400, 20))


def test_a_film_wants_a_length_that_its_frames_divide(seeded, refuses):
    with refuses("every: got 3, wanted a divisor of length 10"):
        cartpole_preferences.film(
            Coin(), clock(9), batch=1, generator=seeded(), length=10, every=3
        )
    with refuses("length: got 0, wanted an int of at least 1"):
        cartpole_preferences.film(
            Coin(), clock(9), batch=1, generator=seeded(), length=0
        )
    with refuses("every: got 0, wanted an int of at least 1"):
        cartpole_preferences.film(
            Coin(), clock(9), batch=1, generator=seeded(), every=0
        )


# ---------------------------------------------------------------- answers


def frequency(first, second, seeded, **knobs):
    n = 40_000
    answers = cartpole_preferences.prefer(
        torch.full((n,), first), torch.full((n,), second), generator=seeded(1), **knobs
    )
    assert answers.dtype == torch.bool and answers.shape == (n,)
    return answers.double().mean().item()


@pytest.mark.parametrize(
    ("difference", "knobs", "wanted"),
    [
        (math.log(3), {"temperature": 1.0, "error": 0.0}, 0.75),
        (-2 * math.log(3), {"temperature": 2.0, "error": 0.0}, 0.25),
        (1000.0, {"error": 0.1}, 0.9),
        (1000.0, {}, 0.95),
        (5 * math.log(3), {"error": 0.0}, 0.75),  # the default temperature is 5 steps
        (0.0, {"error": 0.3}, 0.5),
        (math.log(3), {"temperature": 1.0, "error": 0.2}, 0.8 * 0.75 + 0.2 * 0.25),
    ],
)
def test_the_annotator_answers_with_the_probability_that_is_written(
    difference, knobs, wanted, seeded
):
    got = frequency(difference + 7, 7.0, seeded, **knobs)
    assert abs(got - wanted) < 4 * math.sqrt(0.25 / 40_000)


def test_an_annotator_without_doubts_or_errors_is_always_right(seeded):
    assert frequency(9.0, 8.0, seeded, temperature=1e-3, error=0.0) == 1
    assert frequency(8.0, 9.0, seeded, temperature=1e-3, error=0.0) == 0
    assert frequency(9.0, 8.0, seeded, temperature=1e-3, error=1.0) == 0


def test_the_annotator_refuses_what_is_no_question(seeded, refuses):
    one = numbers(1, 2)
    with refuses("second: got shape (1,), wanted shape (2,)"):
        cartpole_preferences.prefer(one, one[:1], generator=seeded())
    with refuses("first: got list, wanted a Tensor"):
        cartpole_preferences.prefer([1.0], one, generator=seeded())
    with refuses("temperature: got 0, wanted a number above 0"):
        cartpole_preferences.prefer(one, one, generator=seeded(), temperature=0)
    with refuses("error: got 1.5, wanted a number in [0, 1]"):
        cartpole_preferences.prefer(one, one, generator=seeded(), error=1.5)


def test_film_k_meets_film_n_plus_k_and_the_winner_comes_first(refuses):
    films = numbers(0, 1, 2, 3).reshape(4, 1, 1).expand(4, 2, 4)
    found = cartpole_preferences.pair(films, torch.tensor([F, T]))
    assert found[..., 0, 0].tolist() == [[2, 0], [1, 3]]
    assert found.shape == (2, 2, 2, 4)
    with refuses("prefers: got shape (3,), wanted shape (2,)"):
        cartpole_preferences.pair(films, torch.tensor([T, T, T]))


def test_a_frame_shows_whether_the_pole_lies_or_the_cart_is_gone():
    edge = cartpole.THETA_LIMIT
    frames = numbers(
        [2.4, 9, edge, 9], [-2.4, 9, -edge, 9], [2.41, 0, 0, 0], [-2.41, 0, 0, 0],
        [0, 0, edge + 0.01, 0], [0, 0, -edge - 0.01, 0],
    )  # fmt: skip
    assert cartpole_preferences.fallen(frames).tolist() == [F, F, T, T, T, T]
    assert cartpole_preferences.fallen(frames[:, None]).shape == (6, 1)


# ---------------------------------------------------------------- the reward model


def test_a_films_score_is_the_sum_over_its_frames(two):
    loss, metrics = cartpole_preferences.preference_loss(reward_of(0.5), two)
    # (1 + 2) / 2 against (1.5 + 8) / 2: a gap of -3.25
    assert_close(loss.item(), math.log(1 + math.exp(3.25)), rtol=0, atol=1e-12)
    assert metrics["accuracy"] == 0
    assert (
        cartpole_preferences.preference_loss(reward_of(-0.5), two)[1]["accuracy"] == 1
    )


def test_no_comparison_of_equally_long_films_sees_a_constant(two):
    plain, _ = cartpole_preferences.preference_loss(reward_of(0.5), two)
    shifted, _ = cartpole_preferences.preference_loss(reward_of(0.5, bias=7.0), two)
    assert_close(plain, shifted, rtol=0, atol=1e-12)


def test_settling_calls_a_fallen_pole_0_and_an_upright_one_1_in_the_mean(two):
    model = reward_of(-0.5, bias=4.0)
    assert model(two[:, 0]).tolist() == model.raw(two[:, 0]).tolist() == [[3.5, 3]]
    model.settle(two)
    # raw: upright 3.5, 3 and 3.25, mean 3.25; fallen 0. So reward = raw / 3.25
    assert_close(model(two[:, 0]), numbers([3.5 / 3.25, 3 / 3.25]), rtol=0, atol=1e-12)
    assert_close(model(two[:, 1]), numbers([1, 0]), rtol=0, atol=1e-12)
    assert not model(two[:, 0]).requires_grad
    assert model.raw(two[:, 0]).requires_grad


def test_settling_does_not_turn_a_wrong_model_round(two):
    model = reward_of(0.5)
    model.settle(two)  # raw: upright 0.5, 1, 0.75, mean 0.75; fallen 4: a gap of -3.25
    assert_close(model(two[:, 1]), numbers([-1, 0]), rtol=0, atol=1e-12)
    model = reward_of(0.0)
    model.settle(two)
    assert model.unit.item() == 1e-8 and model(two[:, 0]).tolist() == [[0, 0]]


@pytest.mark.parametrize("x", [1.0, 8.0])
def test_nothing_is_settled_without_both_kinds_of_frames(x):
    model = reward_of(0.5)
    model.settle(pairs_of([[x, x]], [[x, x]]))
    assert (model.zero.item(), model.unit.item()) == (0, 1)


def test_a_reward_model_starts_from_its_generator(seeded):
    one, same = FilmRewardModel(seeded(3)), FilmRewardModel(seeded(3))
    x = torch.ones(2, 5, 4, dtype=torch.float64)
    assert torch.equal(one(x), same(x)) and one(x).shape == (2, 5)
    assert not torch.equal(one(x), FilmRewardModel(seeded(4))(x))
    assert (one.zero.item(), one.unit.item()) == (0, 1)
    assert [p.shape[0] for p in one.parameters()] == [32, 32, 1, 1]
    assert [p.shape[0] for p in FilmRewardModel(seeded(), hidden=3).parameters()] == [
        3,
        3,
        1,
        1,
    ]
    assert one.net.units.tolist() == list(cartpole.UNITS)
    for buffer in (one.zero, one.unit):
        assert buffer.dtype == torch.float64


def test_learning_makes_the_model_agree_and_settles_it(seeded):
    draw = seeded(0)
    x = torch.rand(100, 3, 4, dtype=torch.float64, generator=draw) / 10
    lying = x.clone()
    lying[:, 2, 2] += 0.3
    pairs, model = torch.stack((x, lying), 1), FilmRewardModel(draw)
    history = cartpole_preferences.fit_reward_model(model, pairs, generator=draw)
    assert len(history["loss"]) == 60
    assert history["loss"][-1] < 0.1 < history["loss"][0]
    assert model(lying[:, 2]).mean().abs() < 1e-12
    assert (
        len(
            cartpole_preferences.fit_reward_model(
                model, pairs, generator=draw, updates=2
            )["loss"]
        )
        == 2
    )


def test_learning_is_fit_on_minibatches_of_64_pairs(seeded):
    pairs = pairs_of([[k / 99, 1] for k in range(99)], [[2, k / 99] for k in range(99)])
    ours, theirs = FilmRewardModel(seeded(1)), FilmRewardModel(seeded(1))
    history = cartpole_preferences.fit_reward_model(
        ours, pairs, generator=seeded(2), updates=3
    )
    draw = seeded(2)
    batches = [pairs[torch.randint(99, (64,), generator=draw)] for _ in range(3)]
    loss = cartpole_preferences.preference_loss
    assert history == fit(theirs, batches, loss, lr=1e-2, weight_decay=1e-3)
    for weight, fitted in zip(ours.parameters(), theirs.parameters()):
        assert (weight - fitted).abs().max() <= 2**-11  # rounded to the grain
        assert torch.equal(weight * 1024, (weight * 1024).round())


def test_learning_wants_an_update(two, seeded, refuses):
    with refuses("updates: got 0, wanted an int of at least 1"):
        cartpole_preferences.fit_reward_model(
            FilmRewardModel(seeded()), two, generator=seeded(), updates=0
        )


# ---------------------------------------------------------------- who fills the rewards


def test_a_judged_world_differs_in_its_rewards_alone(seeded):
    world = clock(3, 99)
    other = cartpole_preferences.judged(world, lambda states: -states[:, 0])
    assert other.horizon == world.horizon and other.reset is world.reset
    was = play(Coin(), world, batch=2, generator=seeded(5), horizon=5)
    now = play(Coin(), other, batch=2, generator=seeded(5), horizon=5)
    for name in ("states", "actions", "logps", "mask", "last_states", "terminated"):
        assert torch.equal(getattr(was, name), getattr(now, name))
    assert was.rewards.tolist() == [[10, 11, 12, 0, 0], [10, 11, 12, 13, 14]]
    assert now.rewards.tolist() == [[0, -1, -2, 0, 0], [0, -1, -2, -3, -4]]


# ---------------------------------------------------------------- lessons


def test_questions_are_spread_over_three_quarters_of_the_steps(seeded):
    model = FilmRewardModel(seeded())
    lessons = cartpole_preferences.Annotation(
        model,
        cartpole.world(),
        generator=seeded(1),
        comparisons=11,
        rounds=4,
        steps=800,
    )
    lessons.ask(Coin())
    asked = []
    for taken in range(0, 1000, 50):
        assert lessons(Coin(), taken, None) is False
        asked.append(len(lessons.pairs))
    # due at 0.75 · 800 · k / 4 = 150, 300, 450: 11 = 2 + 3 + 3 + 3
    assert asked[:12] == [2, 2, 2, 5, 5, 5, 8, 8, 8, 11, 11, 11] and asked[-1] == 11
    assert [note.comparisons for note in lessons.notes] == [2, 5, 8, 11]


@pytest.mark.parametrize(("ends", "content"), [((390, 999), True), ((389, 999), False)])
def test_questions_end_the_training_once_films_last_395_of_400_steps(
    ends, content, seeded
):
    counts = cartpole_preferences.judged(
        clock(*ends), lambda states: states[:, 0] * 0 + 1
    )
    lessons = cartpole_preferences.Annotation(
        reward_of(1.0), counts, generator=seeded(), comparisons=1, rounds=1
    )
    assert cartpole_preferences.CONTENT == 395
    assert lessons(Coin(), 0, None) is content
    assert lessons.notes[0].truth == (ends[0] + 400) / 2
    assert lessons(Coin(), 9999, None) is False and len(lessons.notes) == 1


def test_a_note_says_how_things_were_before_the_questions(seeded):
    ends, model = (1000, 100, 100, 100), reward_of(-1.0, bias=2.0)
    world = clock(*ends)
    heard = []

    def answer(first, second, *, generator):
        heard.append((first.tolist(), second.tolist()))
        return torch.tensor([True, True])

    lessons = cartpole_preferences.Annotation(
        model,
        world,
        generator=seeded(),
        comparisons=2,
        rounds=1,
        answer=answer,
    )
    before = model.zero.item()
    lessons.ask(Coin())
    (note,) = lessons.notes
    long, short = sum(range(10, 410)), sum(range(10, 110))
    assert heard == [([long, short], [short, short])]
    assert note.comparisons == 2
    assert note.truth == (long + 3 * short) / 4
    # the model calls larger x worse: it would not choose the long film; ties are wrong
    assert note.agreement == 0
    assert before == 0 and len(lessons.pairs) == 2


def test_questions_refuse_fewer_questions_than_rounds(seeded, refuses):
    world, model = cartpole.world(), FilmRewardModel(seeded())
    with refuses("comparisons: got 14, wanted an int of at least 15"):
        cartpole_preferences.Annotation(
            model, world, generator=seeded(), comparisons=14
        )
    with refuses("rounds: got 0, wanted an int of at least 1"):
        cartpole_preferences.Annotation(model, world, generator=seeded(), rounds=0)
    assert (
        cartpole_preferences.Annotation(model, world, generator=seeded()).comparisons
        == 750
    )


# ---------------------------------------------------------------- the whole


def test_the_whole_depends_on_its_seed_alone():
    before = torch.random.get_rng_state()
    knobs = {"steps": 2000, "comparisons": 40, "rounds": 4}
    runs = [cartpole_preferences.from_preferences(seed, **knobs) for seed in (3, 3, 4)]
    (one, first), (same, second), (other, _) = runs
    assert first.notes == second.notes and len(first.notes) == 4
    x = torch.ones(3, 1, 4, dtype=torch.float64)
    assert torch.equal(one(x), same(x)) and not torch.equal(one(x), other(x))
    assert torch.equal(first.reward(x), second.reward(x))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_whole_is_its_parts_put_together():
    steps, knobs = 1500, {"comparisons": 20, "rounds": 2}
    model, lessons = cartpole_preferences.from_preferences(5, steps=steps, **knobs)
    draw, world = stream("films", 5), cartpole.world()
    reward = FilmRewardModel(draw)
    by_hand = cartpole_preferences.Annotation(
        reward, world, generator=draw, steps=steps, **knobs
    )
    by_hand.ask(agents.actor_critic(draw, gamma=0.99))
    place = cartpole_preferences.judged(world, reward)
    theirs, _ = agents.train(
        agents.LADDER["PPO"], place, seed=5, steps=steps, watch=by_hand
    )
    x = torch.ones(3, 1, 4, dtype=torch.float64)
    assert torch.equal(model(x), theirs(x)) and torch.equal(
        lessons.reward(x), reward(x)
    )
    assert lessons.notes == by_hand.notes and len(lessons.notes) == 2
