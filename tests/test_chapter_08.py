"""What chapter 8 claims: of its record, and of the few lines that its page works with."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from labs import policy_gradients as lab
from labs import policy_gradients_runs as made
from lib import advantages, evaluate, on_policy
from lib.algorithms import ALGORITHMS
from lib.worlds import exact, tasks
from tools import notebooks

RUNS = made.RECORD.read()["runs"]

# --- the record -----------------------------------------------------------------------


def test_the_record_holds_every_run_on_five_bases():
    assert {*RUNS} == {*made.RECORD.runs}
    assert len(RUNS) == 1 + 8 * 5 + 6 * 3
    assert all([*of_seeds] == list("01234") for of_seeds in RUNS.values())
    for name, of_seeds in RUNS.items():
        for run in of_seeds.values():
            exams = [run["exam"]] if name == "start" else run["exam"]
            assert [len(exam) for exam in exams] == [made.ITEMS] * len(exams)


def test_the_exam_and_the_games_that_choose_a_rate_are_distinct_and_not_practised():
    asked = evaluate.exam("cups", level=made.EXAMINED, count=made.ITEMS + made.TUNING)
    requests = {task.request for task in asked}
    assert len(requests) == made.ITEMS + made.TUNING
    for seed in range(5):
        fresh = on_policy.task_stream(
            "cups", count=made.PROMPTS, seed=seed, levels=made.LEVELS
        )
        practised = {task.request for u in range(made.UPDATES) for task in fresh(u)}
        assert not requests & practised


def test_at_the_highest_rate_no_algorithm_is_left_with_anything():
    for name in made.ON_POLICY:
        marks = lab.marks(lab.of(RUNS, name, max(made.RATES)), exam=-1)
        assert marks.mean() < 0.05


def test_no_best_rate_is_at_an_end_of_the_sweep():
    for name in made.ON_POLICY:
        assert min(made.RATES) < lab.best(RUNS, name) < max(made.RATES)


def test_with_one_update_a_set_gspo_and_sapo_are_grpo_and_dapo_s_loss_is_cispo_s():
    draw = torch.Generator().manual_seed(0)
    rewards = torch.rand(2, 4, dtype=torch.float64, generator=draw)
    lengths = [2, 5, 10, 1, 3, 3, 7, 4]
    graded = [name for name in ALGORITHMS if name != "MaxRL"]
    found = {n: lab.push(ALGORITHMS[n], rewards, lengths) for n in graded}
    for one, other in (*lab.SAME.items(), ("DAPO", "CISPO")):
        assert_close(found[one], found[other], rtol=0, atol=1e-12)
    constant = lab.ROOM * 4 / 3
    assert_close(found["RLOO"], found["Dr. GRPO"] * constant, rtol=0, atol=1e-12)


def test_dynamic_sampling_asks_for_more_and_its_curves_count_all_of_it():
    for lr in made.RATES:
        asked = lab.course(lab.of(RUNS, "DAPO", lr), "answers")
        assert (asked.sum(1) > made.UPDATES * made.PROMPTS * made.GROUP).all()
        dropped = lab.course(lab.of(RUNS, "DAPO", lr), "zero_variance")
        assert (dropped.amax(1) > 0).all()
    once = lab.course(lab.of(RUNS, "CISPO", 1e-3), "answers")
    assert (once == made.PROMPTS * made.GROUP).all()


def test_gspo_s_clip_holds_most_answers_and_one_a_hundred_times_as_wide_fewer():
    def held(name):
        found = lab.course(lab.of(RUNS, name, 3e-4, again=True), "clip_fraction")
        return found.reshape(5, -1, made.AGAIN)[..., 1:].mean()

    assert held("GSPO") > 0.9 > held(made.WIDE)


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/08_policy_gradients.ipynb")
    assert any("lab.runs.RECORD.read()" in cell.source for cell in page.cells)


# --- how a record is read -------------------------------------------------------------


def one_run(right, tuning):
    return {"exam": [right] * 3, "tuning": [tuning] * 3}


def test_the_rate_is_chosen_by_the_games_that_are_for_it_and_not_by_the_exam():
    record = {f"GRPO, {lr:g}": {"0": one_run("11", 0.1)} for lr in made.RATES}
    record["GRPO, 0.003"] = {"0": one_run("00", 0.9)}
    assert lab.best(record, "GRPO") == 3e-3
    assert lab.best(record, "SAPO") == 3e-3  # GRPO's runs are its own


def test_a_mark_is_an_item_s_mean_over_three_exams_or_the_last():
    found = [{"exam": ["01", "01", "10"]}, {"exam": ["11", "00", "00"]}]
    assert_close(lab.marks(found), torch.tensor([[1, 2], [1, 1]]).double() / 3)
    assert lab.marks(found, exam=-1).tolist() == [[1, 0], [0, 0]]


# --- the runs -------------------------------------------------------------------------


def test_a_run_can_be_made_again(monkeypatch):
    monkeypatch.setattr(made, "UPDATES", 4)
    monkeypatch.setattr(made, "LOOKS", (2, 4))
    monkeypatch.setattr(made, "ITEMS", 6)
    monkeypatch.setattr(made, "TUNING", 2)
    monkeypatch.setattr(made, "others", lambda policy: {"facts": 0.0})
    found = made.trained(0, name="GRPO", lr=1e-3)
    recorded = RUNS["GRPO, 0.001"]["0"]
    assert {*found} == {*recorded} and {*found["curves"]} == {*recorded["curves"]}
    assert [len(exam) for exam in found["exam"]] == [6, 6]
    first = found["curves"]["reward"][:4].tolist()
    assert first == pytest.approx(recorded["curves"]["reward"][:4], abs=1e-3)


def test_a_run_has_a_seed_of_its_own_and_as_many_updates_a_set_as_it_is_told(
    monkeypatch,
):
    for name, value in (("UPDATES", 4), ("LOOKS", (4,)), ("ITEMS", 2), ("TUNING", 2)):
        monkeypatch.setattr(made, name, value)
    monkeypatch.setattr(made, "others", lambda policy: {})
    found = made.trained(2, name="GRPO", lr=1e-3, epochs=4)["curves"]
    recorded = RUNS["GRPO, 0.001, 4 updates"]["2"]["curves"]
    assert found["answers"].tolist() == recorded["answers"][:4] == [64, 0, 0, 0]
    for what in ("reward", "length"):
        first = found[what].tolist()
        assert first == pytest.approx(recorded[what][:4], rel=1e-2, abs=1e-3)


def test_a_run_keeps_every_look_and_goes_as_far_as_its_rate_lets_it(monkeypatch):
    looks, seen = iter("012"), []
    for name, value in (("UPDATES", 2), ("LOOKS", (0, 1, 2)), ("PROMPTS", 2)):
        monkeypatch.setattr(made, name, value)
    monkeypatch.setattr(made, "examined", lambda policy: (look := next(looks), look))
    monkeypatch.setattr(made, "others", lambda policy: seen.append(policy))
    found = made.trained(0, name="GRPO", lr=1e-9)
    assert found["exam"] == found["tuning"] == ["0", "1", "2"]
    base = made.pretrain.base_model(seed=0)
    for one, other in zip(seen[0].parameters(), base.parameters(), strict=True):
        assert_close(one, other, rtol=0, atol=1e-7)


def test_the_base_s_exam_is_the_record_s():
    right, tuning = made.examined(made.pretrain.base_model(seed=0))
    assert right == RUNS["start"]["0"]["exam"]
    assert tuning == pytest.approx(RUNS["start"]["0"]["tuning"], abs=1e-3)
    assert tasks.SKILLS[0] == "cups" and "cups" not in made.OTHERS


def test_the_wide_clip_is_gspo_s_a_hundred_times():
    ratios = torch.tensor([1.02, 1.05, 0.98, 0.96]).double()
    narrow, wide = (made.algorithm(name) for name in ("GSPO", made.WIDE))
    assert (lab.push_at(narrow, ratios[:2], good=True) == 0).all()
    assert (lab.push_at(wide, ratios, good=True) != 0).tolist() == [
        True,
        False,
        True,
        True,
    ]
    assert (lab.push_at(wide, ratios, good=False) != 0).tolist() == [True] * 3 + [False]


# --- lengths --------------------------------------------------------------------------


def test_grpo_s_loss_is_0_whatever_the_rewards_and_the_lengths():
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        rewards = torch.rand(2, 3, dtype=torch.float64, generator=draw)
        lengths = torch.randint(1, 10, (6,), generator=draw).tolist()
        for name in ("GRPO", "GSPO", "RLOO"):
            algorithm, rollout = ALGORITHMS[name], lab.literal(lengths)
            seen = lab.credited(algorithm, rollout, rewards)
            assert algorithm.policy_loss(rollout.logps, seen)[0].abs() < 1e-12
            assert lab.push(algorithm, rewards, lengths).norm() > 0.01


def longer_when_wrong(algorithm, law):
    """How much longer a wrong answer is after twenty expected updates."""
    world = exact.every_completion([0], tokens=range(2), end=1, max_tokens=4)
    right, lengths = torch.tensor([1.0, 0, 0, 0, 0]).double(), world.lengths.double()
    policy, seen = exact.PrefixTable(2, 4), []
    policy.logits.data[0] = torch.tensor([1 - law, law]).log()
    for _ in range(20):
        chances = exact.completion_logps(policy, world).exp().detach()
        seen.append((chances * lengths)[1:].sum() / chances[1:].sum())
        step = lab.expected_push(algorithm, policy, world, right, group=2)
        policy.logits.data += 0.1 * (step / step.norm()).view_as(policy.logits)
    return (seen[-1] - seen[0]).item()


@pytest.mark.parametrize("law", [0.05, 0.2])
def test_to_divide_by_lengths_makes_wrong_answers_longer(law):
    half_done = replace(ALGORITHMS["GRPO"], credit=advantages.group_centred)
    batch_mean = replace(ALGORITHMS["DAPO"], credit=advantages.group_centred)
    assert abs(longer_when_wrong(ALGORITHMS["Dr. GRPO"], law)) < 1e-9
    assert longer_when_wrong(half_done, law) > 0.05
    assert longer_when_wrong(batch_mean, law) > 0.02
