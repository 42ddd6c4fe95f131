"""What chapter 8 claims: of its record, and of the few lines that its page works with."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from labs import policy_gradients_runs, probes
from lib import advantages
from lib.algorithms import ALGORITHMS
from lib.models.transformer import Config, Transformer
from lib.villagers import task_stream
from lib.worlds import exact
from lib.worlds.village import TOKENIZER
from tools import notebooks

TINY = Config(vocabulary=307, context=64, layers=1, width=16, heads=2, hidden=16)
RECORD = policy_gradients_runs.RECORD.read()
SKILLS = ("know", "sum", "repeat", "list", "words")


def column(sweep, what, **only):
    """(runs, …), in the order of the seeds."""
    found = [
        r for r in RECORD[sweep]["runs"] if all(r[k] == v for k, v in only.items())
    ]
    assert [r["seed"] for r in found] == list(range(len(found)))
    return torch.tensor([r[what] for r in found], dtype=torch.float64)


def test_the_record_says_what_made_it():
    assert RECORD["made"] == {
        "command": "python -m tools.record_algorithms",
        "updates": policy_gradients_runs.UPDATES,
        "lr": policy_gradients_runs.LR,
        "answers": policy_gradients_runs.ANSWERS,
        "group": policy_gradients_runs.GROUP,
    }
    for sweep in set(RECORD) - {"made"}:
        made = RECORD[sweep]
        assert len(made["code"]) == 12 and made["date"] >= "2026-11-22"


def test_the_record_holds_every_setting_on_every_seed():
    assert len(RECORD["ladder"]["runs"]) == 10 * 3 + 2 * 2
    for name in ALGORITHMS:
        longer = name in policy_gradients_runs.LONGER
        assert column("ladder", "held", algorithm=name).shape == (5 if longer else 3, 9)
    assert len(RECORD["resampled"]["runs"]) == 2 * 5
    one_each = ("scales", "rates", "betas")
    for sweep, settings in (("epochs", 3), *zip(one_each, (1, 1, 1))):
        assert len(RECORD[sweep]["runs"]) == 3 * settings


@pytest.mark.parametrize("name", policy_gradients_runs.LONGER)
def test_from_one_start_to_ninety_per_cent_on_five_of_five_seeds(name):
    held = column("resampled", "held", algorithm=name)
    assert len(held) == 5
    assert (held[:, 0] < 0.2).all() and (held[:, -1] >= 0.9).all()


@pytest.mark.parametrize("name", policy_gradients_runs.LONGER)
def test_without_dynamic_sampling_one_seed_of_five_takes_longer(name):
    held = column("ladder", "held", algorithm=name)[:, -1]
    assert (held[:4] >= 0.9).all() and 0.7 < held[4] < 0.9


def test_nine_of_ten_learn_the_task_on_every_seed_and_dr_grpo_does_not():
    last = {n: column("ladder", "held", algorithm=n)[:3, -1] for n in ALGORITHMS}
    assert last.pop("Dr. GRPO").min() < 0.5
    assert all((marks >= 0.9).all() for marks in last.values())


def test_with_rewards_that_make_its_gradient_rloo_s_dr_grpo_learns_it_too():
    scaled = column("scales", "held")
    assert (scaled[:, -1] >= 0.94).all()
    assert column("scales", "scale").unique().item() == pytest.approx(
        policy_gradients_runs.SCALE
    )
    norms = {
        n: torch.tensor(
            [r["curves"]["grad_norm"] for r in RECORD[s]["runs"] if r["algorithm"] == n]
        )
        for s, n in (("ladder", "RLOO"), ("ladder", "Dr. GRPO"))
    }
    assert norms["Dr. GRPO"].max() < 0.5 < 1 < norms["RLOO"].mean()


def test_dynamic_sampling_is_faster_by_the_update_and_asks_three_times_as_much():
    marks = {n: column("ladder", "held", algorithm=n).mean(1)[:3] for n in ALGORITHMS}
    faster = marks.pop("DAPO")
    assert all((faster > other + 0.03).all() for other in marks.values())
    asked = column("ladder", "sets", algorithm="DAPO").tolist()
    assert min(asked) == 621 and max(asked) == 649
    assert (column("ladder", "sets", algorithm="DAPO") > 2.5 * 200).all()
    assert (column("ladder", "sets", algorithm="GRPO") == 200).all()


def test_on_three_seeds_two_differences_exceed_three_errors_and_the_rest_not_two():
    level = {n: column("ladder", "held", algorithm=n)[:3].mean(1) for n in ALGORITHMS}
    grpo, far = level.pop("GRPO"), {}
    for name, found in level.items():
        gap = found - grpo
        far[name] = (gap.mean() / (gap.std() / 3**0.5)).item()
    assert far.pop("DAPO") == pytest.approx(3.5, abs=0.05)
    assert far.pop("PPO") == pytest.approx(-4.7, abs=0.05)
    assert max(map(abs, far.values())) < 2
    five = column("ladder", "held", algorithm="GRPO").mean(1)
    assert [round(x.item(), 2) for x in five.aminmax()] == [0.37, 0.69]


def test_groups_drawn_anew_are_ahead_after_100_updates_on_five_of_five_seeds():
    for name in policy_gradients_runs.LONGER:
        drawn_anew = column("resampled", "held", algorithm=name)[:, 4]
        assert (drawn_anew > column("ladder", "held", algorithm=name)[:, 4]).all()


def test_with_dynamic_sampling_the_diagnostics_are_of_the_kept_groups_only():
    first = {
        (name, what): [
            run["curves"][what][0]
            for run in RECORD["ladder"]["runs"]
            if run["algorithm"] == name
        ]
        for name in ("DAPO", "GRPO")
        for what in ("reward", "silent")
    }
    assert set(first["DAPO", "silent"]) == {0.0}
    assert 0.27 <= min(first["DAPO", "reward"]) and max(first["DAPO", "reward"]) < 0.29
    assert 0.10 <= min(first["GRPO", "reward"]) and max(first["GRPO", "reward"]) < 0.15
    assert 0.45 <= min(first["GRPO", "silent"]) and max(first["GRPO", "silent"]) < 0.645


def test_at_twice_the_learning_rate_grpo_learns_nothing_on_three_of_three_seeds():
    held = column("rates", "held", lr=2 * policy_gradients_runs.LR)
    assert len(held) == 3 and (held[:, 1:] < 0.1).all() and (held[:, -1] == 0).all()


def test_five_runs_of_the_live_settings_differ_widely_after_75_updates():
    held = column("ladder", "held", algorithm="GRPO")[:, 3]
    assert 0.25 < held.min() < 0.265 and 0.67 < held.max() < 0.68


def test_the_exam_has_134_different_words_and_none_of_them_is_trained():
    words = {task.request for task in policy_gradients_runs.TEST}
    assert len(policy_gradients_runs.TEST) == 200 and len(words) == 134
    for seed in range(3):
        ask = task_stream("reverse", count=16, seed=seed)
        assert not words & {task.request for u in range(200) for task in ask(u)}


def test_on_policy_every_ratio_is_1_and_grpo_s_loss_is_0():
    for name in ("GRPO", "GSPO", "RLOO", "DAPO"):
        for run in RECORD["ladder"]["runs"]:
            if run["algorithm"] == name:
                assert max(run["curves"]["clip_fraction"]) == 0
                assert max(run["curves"]["approx_kl"]) < 1e-4
                if name != "DAPO":
                    assert max(map(abs, run["curves"]["loss"])) < 1e-3


def test_pass_at_k_rises_where_training_succeeds_and_falls_where_it_got_stuck():
    [before] = [run["pass"] for run in RECORD["start"]["runs"]]
    grpo, stuck = (column("ladder", "pass", algorithm=n) for n in ("GRPO", "Dr. GRPO"))
    assert (grpo[:, 0] > before[0] + 0.6).all() and (grpo[:, 4] > before[4] + 0.2).all()
    assert (grpo[:4, 0] > 0.97).all() and grpo[4, 6] == pytest.approx(
        before[6], abs=0.01
    )
    assert stuck[2, 0] > 2 * before[0] and stuck[2, 6] < before[6] - 0.3


def test_every_other_skill_is_lost():
    [before] = [run["skills"] for run in RECORD["start"]["runs"]]
    assert sum(before[skill] for skill in SKILLS) / 5 > 0.6
    for run in RECORD["ladder"]["runs"]:
        assert sum(run["skills"][skill] for skill in SKILLS) / 5 <= 0.03 + 1e-9


def test_dr_grpo_is_rloo_times_a_constant_on_policy():
    draw = torch.Generator().manual_seed(0)
    rewards = torch.rand(2, 4, dtype=torch.float64, generator=draw)
    lengths = [2, 5, 10, 1, 3, 3, 7, 4]
    rloo, dr = (
        probes.push(ALGORITHMS[name], rewards, lengths) for name in ("RLOO", "Dr. GRPO")
    )
    assert_close(rloo, dr * probes.ROOM * 4 / 3, rtol=0, atol=1e-12)


def test_grpo_s_loss_is_0_whatever_the_rewards_and_the_lengths():
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        rewards = torch.rand(2, 3, dtype=torch.float64, generator=draw)
        lengths = torch.randint(1, 10, (6,), generator=draw).tolist()
        for name in ("GRPO", "GSPO", "RLOO"):
            algorithm, rollout = ALGORITHMS[name], probes.literal(lengths)
            seen = probes.credited(algorithm, rollout, rewards)
            assert algorithm.policy_loss(rollout.logps, seen)[0].abs() < 1e-12
            assert probes.push(algorithm, rewards, lengths).norm() > 0.01


def longer_when_wrong(algorithm, law):
    """How much longer a wrong answer is after twenty expected updates."""
    world = exact.every_completion([0], tokens=range(2), end=1, max_tokens=4)
    right, lengths = torch.tensor([1.0, 0, 0, 0, 0]).double(), world.lengths.double()
    policy, seen = exact.PrefixTable(2, 4), []
    policy.logits.data[0] = torch.tensor([1 - law, law]).log()
    for _ in range(20):
        chances = exact.completion_logps(policy, world).exp().detach()
        seen.append((chances * lengths)[1:].sum() / chances[1:].sum())
        step = probes.expected_push(algorithm, policy, world, right, group=2)
        policy.logits.data += 0.1 * (step / step.norm()).view_as(policy.logits)
    return (seen[-1] - seen[0]).item()


@pytest.mark.parametrize("law", [0.05, 0.2])
def test_to_divide_by_lengths_makes_wrong_answers_longer(law):
    half_done = replace(ALGORITHMS["GRPO"], credit=advantages.group_centred)
    batch_mean = replace(ALGORITHMS["DAPO"], credit=advantages.group_centred)
    assert abs(longer_when_wrong(ALGORITHMS["Dr. GRPO"], law)) < 1e-9
    assert longer_when_wrong(half_done, law) > 0.05
    assert longer_when_wrong(batch_mean, law) > 0.02


def test_a_run_can_be_made_again(monkeypatch):
    monkeypatch.setattr(policy_gradients_runs, "TEST", policy_gradients_runs.TEST[:4])
    monkeypatch.setattr(policy_gradients_runs, "TRIES", (1, 2))
    monkeypatch.setattr(policy_gradients_runs, "ANSWERS", 8)
    monkeypatch.setattr(
        policy_gradients_runs.evaluate, "skills", lambda p, count: {"sum": 0}
    )
    tiny = Transformer(TINY, generator=torch.Generator().manual_seed(0))
    assert len(TOKENIZER) <= TINY.vocabulary
    knobs = {"model": tiny, "updates": 10, "group": 4}
    found = policy_gradients_runs.trained(0, name="GRPO", **knobs)
    recorded = set(RECORD["ladder"]["runs"][0]) - {"seed"}
    assert set(found) == recorded | {"scale"}
    assert found["sets"] == 10 and len(found["held"]) == 1
    assert set(found["curves"]) >= {
        "loss",
        "reward",
        "zero_variance",
        "entropy",
        "length",
    }
    assert found["pass"] == [0, 0]


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/08_policy_gradients.ipynb")
    assert any(
        policy_gradients_runs.RECORD.path.name in cell.source for cell in page.cells
    )


def test_several_updates_help_reinforce_and_gspo_s_clip_holds_every_answer():
    last = {
        n: column("epochs", "held", algorithm=n)[:, -1]
        for n in policy_gradients_runs.AGAIN
    }
    assert (last["REINFORCE"] > last["GRPO"]).all()
    assert (last["GRPO"] > last["GSPO"]).all()
    for run in RECORD["epochs"]["runs"]:
        clip = run["curves"].get("clip_fraction", [0.2])
        low, high = (0.65, 0.81) if run["algorithm"] == "GSPO" else (0.1, 0.35)
        assert low < min(clip) and max(clip) < high
