"""What the stages of a recipe run: small amounts, and the same answers after a crash."""

import copy
import math
import random
from functools import partial

import pytest
import torch

from lib import checkpoint, direct, evaluate, preference_data, rewards, villagers
from lib.algorithms import ALGORITHMS
from lib.losses.preference import dpo
from lib.on_policy import PolicyWithCritic, RLConfig, make_batch
from lib.recipes import deepseek_r1, feedback, instructgpt, prompts, tools, tulu3
from lib.recipes.decontaminate import decontaminator
from lib.recipes.stages import BASE, Outcome, Work
from lib.reward_model import RewardModel, SurprisalRewardModel, score
from lib.rollout import Rollout
from lib.seeds import seed_of
from lib.sft import written
from lib.train import fit
from lib.villagers import base_model
from lib.worlds.village import TOKENIZER, taste
from lib.worlds.village.corpus import documents
from lib.worlds.village.tasks import reasoning, tasks


@pytest.fixture(scope="module")
def model():
    return villagers.instructed_model()


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


def work(model, amount, *, checkpoint=None, used=None, updates=None):
    return Work(model, used, amount, 0, checkpoint, None, updates)


class Stop(Exception):
    """The lights go out."""


def dying(reward, after):
    """The same reward, until it has been asked so often."""
    count = 0

    def judged(asked, rollout):
        nonlocal count
        count += 1
        if count > after:
            raise Stop
        return reward(asked, rollout)

    return judged


# --- what is asked, and who judges ----------------------------------------------------


def test_a_mix_holds_each_kind_in_its_share_and_the_first_takes_the_rest():
    asks = prompts.mixed((0.5, prompts.skill("sum", 1)), (0.3, prompts.talk))
    found = [task.skill for task in asks(9, 0)]
    assert sorted(found) == ["sum"] * 7 + ["talk"] * 2 and found != sorted(found)
    only = prompts.mixed((0.9, prompts.talk), (0.1, prompts.skill("sum")))
    assert [task.skill for task in only(5, 0)] == ["talk"] * 5
    assert {task.level for task in prompts.skill("sum", 1)(8, 0)} == {1}
    assert {task.level for task in prompts.skill("sum")(50, 0)} == {1, 2, 3, 4}


def test_a_pool_is_asked_without_repeats_if_it_is_large_enough():
    pool = prompts.talk(20, 0)
    ask = prompts.from_pool(pool, 20, 3)
    assert sorted(map(id, ask(0))) == sorted(map(id, pool))
    assert ask(0) == ask(0) != ask(1)
    assert prompts.from_pool(pool, 20, 4)(0) != ask(0)
    assert len(prompts.from_pool(pool[:2], 5, 0)(0)) == 5


def answered(asked, texts):
    return written(asked, texts)


def test_right_and_reasoned_wants_both():
    task = tasks("sum", count=1, seed=0)[0]
    wrong = reasoning(task).replace("</think> ", "</think> 1")
    texts = [reasoning(task), task.answer, wrong]
    rollout = answered([task] * 3, texts)
    assert prompts.right_and_reasoned([task], rollout).tolist() == [1, 0, 0]


def test_by_kind_asks_the_verifier_where_there_is_one_and_the_model_elsewhere(model):
    judge = SurprisalRewardModel(model)
    torch.nn.init.normal_(judge.head.weight, generator=torch.Generator().manual_seed(0))
    sums, talk = tasks("sum", count=2, seed=0), taste.requests(count=1, seed=0)
    asked = [sums[0], talk[0], sums[1]]
    each = [task for task in asked for _ in range(2)]
    texts = [task.answer for task in each]
    texts[0], texts[3] = "99", "It is old."
    rollout = answered(each, texts)
    found = prompts.by_kind(judge, weight=0.5)(asked, rollout)
    said = score(judge, rollout)
    assert found[[0, 1, 4, 5]].tolist() == [0, 1, 1, 1]
    torch.testing.assert_close(found[2:4], 0.5 * said[2:4])
    only = prompts.by_kind(judge)(sums, answered(sums, [t.answer for t in sums]))
    assert only.tolist() == [1, 1]


# --- stages ---------------------------------------------------------------------------


def test_demonstrations_are_as_many_as_asked_for_and_seen_every_epoch(model):
    outcome = tools.sft_stage(epochs=3, lr=1e-3, batch=4)(work(model, 10))
    assert len(outcome.history["loss"]) == 9 and outcome.answers == 0
    assert not torch.equal(weights(outcome.model), weights(model))


def test_a_reward_model_hears_rankings_of_several_lengths(model):
    run = feedback.reward_model_stage(answers=(2, 3), batch=4)
    outcome = run(work(model, 10))
    assert isinstance(outcome.model, SurprisalRewardModel)
    assert len(outcome.history["loss"]) == 3
    assert 10 * 2 <= outcome.answers <= 10 * 3
    assert 0 <= outcome.notes["accuracy"] <= 1
    again = run(work(model, 10))
    assert torch.equal(weights(outcome.model), weights(again.model))


def test_rankings_list_the_best_answer_first(model, monkeypatch):
    seen = []

    def looked(reward_model, batch):
        seen.append(batch)
        return real(reward_model, batch)

    real = feedback._ranking_loss
    monkeypatch.setattr(feedback, "_ranking_loss", looked)
    exact = taste.Annotators(temperature=0.0, error_rate=0.0)
    feedback.reward_model_stage(answers=(4,), batch=5, annotators=exact)(work(model, 5))
    [ranked] = seen
    gold = evaluate.scores(prompts.talk(5, 0), ranked.answers).reshape(5, ranked.group)
    assert (gold.diff(dim=1) <= 0).all() and ranked.group == 4


def test_preferences_are_between_two_answers_of_the_model_itself(model):
    run = tools.dpo_stage(prompts.talk, beta=5.0, lr=3e-4, batch=4)
    outcome = run(work(model, 8))
    assert outcome.answers == 4 * preference_data.PROMPTS_AT_ONCE
    assert len(outcome.history["loss"]) == 2
    assert outcome.history["margin"][0] == pytest.approx(0, abs=1e-5)


def test_the_answer_ranked_first_is_preferred_to_one_of_the_others(model):
    exact = taste.Annotators(temperature=0.0, error_rate=0.0)
    asks = prompts.mixed((0.5, prompts.talk), (0.5, prompts.skill("reverse")))
    pairs, answers = preference_data.ranked_pairs(
        model, asks, count=150, seed=3, annotators=exact
    )
    assert len(pairs) == 150 and answers % (4 * preference_data.PROMPTS_AT_ONCE) == 0
    assert (pairs.chosen_gold > pairs.rejected_gold).all()
    assert {task.skill for task in pairs.asked} == {"talk", "reverse"}
    for side in ("chosen", "rejected"):
        said = evaluate.scores(pairs.asked, getattr(pairs, side))
        assert torch.equal(said, getattr(pairs, f"{side}_gold"))
    again, _ = preference_data.ranked_pairs(
        model, asks, count=150, seed=3, annotators=exact
    )
    assert torch.equal(again.chosen.actions, pairs.chosen.actions)


def test_all_answers_of_a_prompt_but_the_first_can_be_rejected(model):
    exact = taste.Annotators(temperature=0.0, error_rate=0.0)
    pairs, _ = preference_data.ranked_pairs(
        model, prompts.talk, count=100, seed=0, annotators=exact
    )
    draw = torch.Generator().manual_seed(0)
    asked = prompts.talk(preference_data.PROMPTS_AT_ONCE, seed_of("pairs", 0, 0))
    rollout = evaluate.ask(model, asked, group=4, generator=draw)
    gold = evaluate.scores(asked, rollout).reshape(-1, 4)
    rows, ranks = {}, []
    for task, row in zip(asked, gold.tolist()):
        rows.setdefault(task.request, []).append(sorted(row, reverse=True))
    both = zip(pairs.asked, pairs.chosen_gold.tolist(), pairs.rejected_gold.tolist())
    for task, chosen, rejected in list(both)[:60]:
        row = next(r for r in rows[task.request] if r[0] == chosen and rejected in r)
        ranks.append(row.index(rejected))
    assert set(ranks) == {1, 2, 3}


class Says(torch.nn.Module):
    """A policy that says one of these texts of one token, each as likely, and ends."""

    def __init__(self, *texts):
        super().__init__()
        first = [TOKENIZER.encode(text)[0] for text in texts] or [TOKENIZER.end]
        self.next = torch.nn.Embedding(len(TOKENIZER), len(TOKENIZER))
        torch.nn.init.constant_(self.next.weight, -50.0)
        self.next.weight.data[:, TOKENIZER.end] = 50.0
        after = TOKENIZER.encode(tasks("sum", count=1, seed=0)[0].prompt)[-1]
        self.next.weight.data[after] = -50.0
        self.next.weight.data[after, first] = 50.0

    def forward(self, tokens):
        return self.next(tokens)  # (B, T) -> (B, T, A)


def test_a_block_in_which_every_pair_ties_is_followed_by_another():
    sums = tasks("sum", count=200, seed=0, levels=[1])
    nine, seven = (next(t for t in sums if t.answer == a) for a in ("9", "7"))
    first = seed_of("pairs", 3, 0)

    def asks(count, seed):
        return [nine if seed == first else seven] * count

    pairs, answers = preference_data.ranked_pairs(
        Says("7", "8"), asks, count=10, seed=3
    )
    assert answers == 2 * 4 * preference_data.PROMPTS_AT_ONCE
    assert pairs.asked == [seven] * 10
    assert (pairs.chosen_gold != pairs.rejected_gold).all()


@pytest.mark.parametrize("texts", [(), ("9",)], ids=["silent", "of one answer"])
def test_a_policy_whose_answers_always_tie_is_refused(texts, refuses):
    wanted = "policy: got answers of one score, always, wanted some that differ"
    with refuses(wanted):
        preference_data.ranked_pairs(
            Says(*texts), prompts.skill("sum", 1), count=1, seed=0
        )


def test_pairs_of_another_model_can_be_learnt_from(model):
    run = tools.dpo_stage(prompts.talk, beta=5.0, lr=3e-4, batch=4)
    own, off = run(work(model, 8)), run(work(model, 8, used=base_model()))
    assert off.history["loss"][0] == pytest.approx(own.history["loss"][0], abs=1e-5)
    assert not torch.equal(weights(own.model), weights(off.model))


def test_the_pairs_are_the_teacher_s_and_the_loss_is_dpo_s_mean_per_token(model):
    """Stage and hand-made run end in the same weights."""
    teacher = base_model()
    stage = tools.dpo_stage(prompts.talk, beta=5.0, lr=3e-4, batch=4)
    pairs, _ = preference_data.ranked_pairs(teacher, prompts.talk, count=8, seed=0)
    given = {"epochs": 1, "lr": 3e-4, "batch": 4, "seed": 0, "per_token": True}
    want, _ = direct.align(model, pairs, partial(dpo, beta=5.0), **given)
    found = stage(work(model, 8, used=teacher)).model
    assert torch.equal(weights(found), weights(want))


def test_every_block_of_prompts_is_drawn_anew(model):
    seeds = []

    def asks(count, seed):
        seeds.append(seed)
        return prompts.talk(count, seed)

    preference_data.ranked_pairs(
        model, asks, count=2 * preference_data.PROMPTS_AT_ONCE, seed=3
    )
    assert len(seeds) > 2 and len(set(seeds)) == len(seeds)


def in_parts(model, batch, loss, over, parts):
    """The gradient of a batch that is read in so many parts."""
    model = copy.deepcopy(model)
    fit(model, [batch], loss, lr=1e-3, over=over, microbatches=parts)
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.requires_grad])


@pytest.fixture
def rolled(model):
    """A model in float64 and its answers, three to each of seven requests."""
    model, draw = copy.deepcopy(model).double(), torch.Generator().manual_seed(0)
    asked = prompts.talk(7, 0)
    return model, evaluate.ask(model, asked, group=3, generator=draw)


@pytest.mark.parametrize("parts", [2, 7])
def test_rankings_in_parts_have_the_gradient_of_the_whole(rolled, parts):
    model, rollout = rolled
    judge = SurprisalRewardModel(model)
    torch.nn.init.constant_(judge.head.weight, 0.1)
    batch = feedback.Ranked(rollout, 3)
    given = judge, batch, feedback._ranking_loss, "rows"
    whole, found = in_parts(*given, 1), in_parts(*given, parts)
    assert (found - whole).norm() < 1e-12 * whole.norm()


@pytest.mark.parametrize("rows", [4, 9])  # of text: fewer than prompts, and more
@pytest.mark.parametrize("parts", [2, 7])
def test_answers_and_old_text_in_parts_have_the_gradient_of_the_whole(
    rolled, rows, parts
):
    model, rollout = rolled
    learner, algorithm = PolicyWithCritic(model, RewardModel(model)), ALGORITHMS["PPO"]
    scores, config = rollout.lengths.double().reshape(-1, 3), RLConfig(group=3)
    judged = make_batch(learner, algorithm, rollout, scores, config=config)
    text = villagers.rows(documents(count=60, seed=0))[:rows]
    loss = partial(feedback._mixed_loss, ptx=0.5)
    given = learner, feedback.Mixed(judged, text), loss, algorithm.over
    whole, found = in_parts(*given, 1), in_parts(*given, parts)
    assert (found - whole).norm() < 1e-12 * whole.norm()


def test_the_kl_of_ppo_is_measured_from_where_the_stage_began(model):
    run = feedback.ppo_stage(updates=4, prompts=2, group=2, rows=2, lr=1e-2)
    kl = run(work(model, 6, used=RewardModel(model))).history["kl"]
    assert abs(kl[0]) < 1e-3 < 1e-1 < max(kl)  # the live policy is 0 from itself


def test_practice_goes_on_after_a_crash_bit_for_bit(model, tmp_path):
    asks, knobs = prompts.skill("reverse"), {"prompts": 3, "group": 4, "max_tokens": 8}
    whole = tools.rl_stage(asks, rewards.verified, updates=4, **knobs)
    want = whole(work(model, 6))
    assert want.answers == 4 * 12 and len(want.history["reward"]) == 4
    part = tmp_path / "x.part"
    broken = tools.rl_stage(asks, dying(rewards.verified, 2), updates=4, **knobs)
    with pytest.raises(Stop):
        broken(work(model, 6, checkpoint=part))
    got = whole(work(model, 6, checkpoint=part))
    assert torch.equal(weights(want.model), weights(got.model))
    once = tools.rl_stage(asks, rewards.verified, **knobs)(work(model, 6))
    assert len(once.history["loss"]) == 2  # each task once


def test_rl_makes_the_updates_of_its_stage_or_its_own_or_asks_each_prompt_once(model):
    judge, few = RewardModel(model), {"prompts": 3, "group": 2}
    sums = prompts.skill("sum", 1)

    def ppo(**own):
        return feedback.ppo_stage(**few, rows=2, **own)

    def rl(**own):
        return tools.rl_stage(sums, rewards.verified, max_tokens=4, **few, **own)

    for tool in (ppo, rl):
        for own, stage, want in ((None, 3, 3), (2, 3, 2), (None, None, 7 // 3)):
            outcome = tool(updates=own)(work(model, 7, used=judge, updates=stage))
            assert len(outcome.history["reward"]) == want
            assert outcome.answers == want * 3 * 2


def test_ppo_goes_on_after_a_crash_bit_for_bit_with_its_critic(
    model, tmp_path, monkeypatch
):
    judge = RewardModel(model)
    torch.nn.init.normal_(judge.head.weight, generator=torch.Generator().manual_seed(0))
    given = {"updates": 4, "prompts": 2, "group": 2, "rows": 2}
    run, real = feedback.ppo_stage(**given), rewards.learned
    want = run(work(model, 6, used=judge))
    assert want.answers == 16 and len(want.history["kl"]) == 4
    assert all(value > 1 for value in want.history["perplexity"])
    plain = feedback.ppo_stage(**given, ptx=0.0)(work(model, 6, used=judge))
    assert "perplexity" not in plain.history
    assert plain.history["loss"][0] != want.history["loss"][0]
    added = want.history["loss"][0] - plain.history["loss"][0]
    text = math.log(want.history["perplexity"][0])  # before anything was learnt
    assert added == pytest.approx(0.5 * text, rel=1e-4)
    part = tmp_path / "x.part"
    monkeypatch.setattr(feedback, "learned", lambda m: dying(real(m), 2))
    with pytest.raises(Stop):
        run(work(model, 6, checkpoint=part, used=judge))
    monkeypatch.setattr(feedback, "learned", real)
    got = run(work(model, 6, checkpoint=part, used=judge))
    assert torch.equal(weights(want.model), weights(got.model))


def kinds(model):
    """One stage of each kind, with more updates than one checkpoint apart."""
    sums = prompts.skill("sum", 1)
    answer = {"prompts": 2, "group": 2, "max_tokens": 8}
    return {
        "demonstrated": (tools.sft_stage(epochs=3, lr=1e-3, batch=1), 9, None),
        "ranked": (feedback.reward_model_stage(answers=(2, 3), batch=1), 25, None),
        "preferred": (
            tools.dpo_stage(prompts.talk, beta=5.0, lr=3e-4, batch=1),
            25,
            None,
        ),
        "practised": (
            tools.rl_stage(sums, rewards.verified, updates=24, **answer),
            8,
            None,
        ),
        "harvested": (  # 28 updates on demonstrations alone, however many are right
            tools.rejection_stage(sums, group=8, general=0.5, batch=1),
            24,
            model,
        ),
        "ppo": (
            feedback.ppo_stage(updates=24, prompts=2, group=2, rows=2),
            8,
            RewardModel(model),
        ),
    }


@pytest.mark.parametrize(
    "kind", ["demonstrated", "ranked", "preferred", "practised", "harvested", "ppo"]
)
def test_every_kind_of_stage_goes_on_in_its_middle_bit_for_bit(
    model, tmp_path, monkeypatch, kind
):
    run, amount, used = kinds(model)[kind]
    whole = run(work(model, amount, used=used))
    real, saved = checkpoint.save, []

    def dying(place, state):
        if saved:
            raise Stop
        saved.append(place)
        real(place, state)

    part = tmp_path / "x.part"
    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(Stop):
        run(work(model, amount, used=used, checkpoint=part))
    kept = part.stat().st_mtime_ns
    monkeypatch.setattr(checkpoint, "save", real)
    found = run(work(model, amount, used=used, checkpoint=part))
    assert saved == [part] and part.stat().st_mtime_ns > kept
    assert torch.equal(weights(whole.model), weights(found.model))
    assert whole.history == found.history and whole.answers == found.answers


def test_the_critic_starts_as_the_reward_model_reads(model):
    judge = SurprisalRewardModel(model)
    torch.nn.init.normal_(judge.head.weight, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 20, 30, 40]])
    critic = feedback._critic(judge)
    torch.testing.assert_close(critic(tokens), judge(tokens))  # its ear is still 0
    assert type(critic) is RewardModel


def test_a_harvest_keeps_the_right_and_adds_the_general(model):
    asks = prompts.skill("sum", 1)
    run = tools.rejection_stage(asks, group=6, epochs=1, batch=100)
    outcome = run(work(model, 20, used=model))
    assert outcome.answers == 120 and 0 < outcome.notes["kept"] < 1
    mixed = tools.rejection_stage(asks, group=6, epochs=1, batch=1, general=0.5)
    found = mixed(work(model, 40, used=model))
    kept = round(found.notes["kept"] * 20)
    assert len(found.history["loss"]) == kept + 3 * 7 and found.answers == 120


@pytest.mark.parametrize("general", [0.0, 0.5])
def test_a_harvest_from_a_model_that_is_never_right_is_refused(general, model, refuses):
    run = tools.rejection_stage(prompts.skill("sum", 1), group=3, general=general)
    asked = round(4 * (1 - general))
    got = f"a model with none of {3 * asked} answers right and well reasoned"
    with refuses(f"used: got {got}, wanted at least one answer to imitate"):
        run(work(model, 4, used=Says("9", "red")))


def test_what_a_harvest_teaches_is_what_was_said(model, monkeypatch):
    seen = []
    real = tools.sft.shuffled

    def looked(shown, **knobs):
        seen.extend(shown)
        return real(shown, **knobs)

    monkeypatch.setattr(tools.sft, "shuffled", looked)
    run = tools.rejection_stage(prompts.skill("sum", 1), group=6, epochs=1)
    run(work(model, 20, used=model))
    assert seen
    for task, text in seen:
        rollout: Rollout = written([task], [text])
        assert prompts.right_and_reasoned([task], rollout).item() == 1


def test_instructgpt_has_the_sizes_and_the_order_of_its_paper():
    stages = instructgpt.RECIPE.stages
    assert [(s.name, s.start, s.published) for s in stages] == [
        ("sft", BASE, 12_725),
        ("reward", "sft", 33_207),
        ("ppo", "sft", 31_144),
    ]
    assert [s.judges for s in stages] == [False, True, False]


def test_tulu3_has_the_sizes_and_the_order_of_its_paper():
    stages = tulu3.RECIPE.stages
    assert [(s.name, s.start, s.published, s.uses) for s in stages] == [
        ("sft", BASE, 939_344, None),
        ("dpo", "sft", 271_409, None),
        ("rlvr", "dpo", 29_946, None),
    ]


def test_deepseek_r1_has_the_stages_of_its_paper_and_trains_them_from_its_models():
    stages = deepseek_r1.RECIPE.stages
    assert [(s.name, s.start, s.uses) for s in stages] == [
        ("zero", BASE, None),
        ("cold", BASE, "zero"),
        ("reasoning", "cold", None),
        ("sft", BASE, "reasoning"),
        ("reward", "sft", None),
        ("r1", "sft", "reward"),
    ]
    assert stages[0].published == 32 * 10_400 and stages[3].published == 800_000


def test_what_is_too_near_to_the_evaluations_is_drawn_again():
    held_out = villagers.exam(count=prompts.EXAM)
    near = decontaminator(held_out)
    asks = prompts.clean(prompts.skill("sum"))
    found = asks(200, 0)
    assert len(found) == 200 and not any(map(near, found))
    assert any(map(near, prompts.skill("sum")(200, 0)))
    with pytest.raises(ValueError, match="^asks: got 0 clean tasks, wanted 5"):
        prompts.clean(lambda count, seed: held_out[:count])(5, 0)


def test_clean_demonstrations_lack_what_is_too_near(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tools.sft,
        "shuffled",
        lambda shown, **knobs: seen.append(shown) or iter(()),
    )
    outcome = Outcome(model, {})
    monkeypatch.setattr(tools, "_tuned", lambda *given: outcome)
    for clean in (False, True):
        found = tools.sft_stage(epochs=1, lr=1e-3, clean=clean)(work(model, 350))
    near = decontaminator(villagers.exam(count=prompts.EXAM))
    assert seen[1] == [shown for shown in seen[0] if not near(shown[0])]
    assert 0 < found.notes["kept"] == len(seen[1]) / 350 < 1


def test_demonstrations_of_a_stage_are_drawn_from_its_seed(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tools.sft,
        "shuffled",
        lambda shown, **knobs: seen.append(shown) or iter(()),
    )
    monkeypatch.setattr(tools, "_tuned", lambda *given: Outcome(model, {}))
    for _ in range(2):
        tools.sft_stage(epochs=1, lr=1e-3)(work(model, 10))
    assert seen[0] == seen[1] and len(seen[0]) == 10
    every = villagers.demonstrations(count=2, seed=0)
    assert seen[0] == random.Random(0).sample(every, 10)
