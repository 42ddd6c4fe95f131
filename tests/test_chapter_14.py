"""What chapter 14 claims: figures with sources, and what a token costs."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labs import (
    deepseek_r1,
    evolution_of_scale,
    instructgpt,
    tulu3,
    tulu3_runs,
)
from labs.published import LECTURE, RECIPES, facts, find
from lib.models.transformer import Config, Transformer
from tools import notebooks

RUNS = evolution_of_scale.RECORD.read()["runs"]
TASKS = ("SFT", "DPO", "GRPO, sampling", "GRPO, learning")


def merged(rounds):
    """A model of the record, with the seconds of all its rounds."""
    found = dict(rounds["0"])
    for task in TASKS:
        seconds = [each[task]["seconds"] for each in rounds.values()]
        found[task] = {**rounds["0"][task], "seconds": seconds}
    return found


MODELS = {name: merged(rounds) for name, rounds in RUNS.items() if name != "crowd"}
CROWD = [each["seconds"] for each in RUNS["crowd"].values()]
GROWING = [model for name, model in MODELS.items() if name != "64 x 16"]
DAY = 86_400e15
PAGE = notebooks.read(notebooks.ROOT / "notebooks" / "14_evolution_of_scale.ipynb")
PROSE = "\n".join(c.source for c in PAGE.cells if c.cell_type == "markdown")


def number(*name, **source):
    return find(*name, **source).number


def counted(work):
    with FlopCounterMode(display=False) as counter:
        done = work()
    return counter.get_total_flops(), done


# ------------------------------------------------------------- the lecture, corrected


def test_two_of_the_lectures_six_sizes_are_right():
    off = {}
    for fact in facts():
        if fact.paper == LECTURE and fact.what == "size":
            ratio = fact.number / number(fact.recipe, fact.stage, "size")
            if not math.isnan(ratio):
                off[fact.recipe, fact.stage] = ratio
    assert len(off) == 6
    assert sum(0.7 < ratio < 1.5 for ratio in off.values()) == 2
    assert sum(ratio > 3 for ratio in off.values()) == 3
    assert sum(ratio < 0.4 for ratio in off.values()) == 1


def test_the_lectures_cold_start_and_its_mixture_are_not_the_papers():
    r1 = "deepseek_r1"
    assert number(r1, "cold", "size", paper=LECTURE) == 100_000
    assert find(r1, "cold", "size").value == "thousands"
    general = number(r1, "sft", "general") / number(r1, "sft", "size")
    assert round(general, 2) == 0.22
    assert number(r1, "sft", "general share", paper=LECTURE) == 0.25


def test_the_steps_of_r1s_first_rl_stage_are_not_published():
    assert find("deepseek_r1", "reasoning", "size").value is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_figure_of_a_correction_on_the_page_is_in_the_file(recipe):
    sizes = [f for f in facts(recipe) if f.paper != LECTURE and f.what == "size"]
    numbers = [f"{f.value:,}" for f in sizes if not math.isnan(f.number)]
    assert sum(each in PROSE for each in numbers) >= 2


# ------------------------------------------------- does the sentence hold: data, stages


def test_data_grew_to_tulu_and_not_from_there():
    sft = [number(recipe, "sft", "size") for recipe in RECIPES]
    assert 70 < sft[1] / sft[0] < 75
    assert sft[2] < sft[1]
    pairs = number("tulu3", "dpo", "size"), number("deepseek_r1", "reward", "size")
    assert 0.2 < pairs[1] / pairs[0] < 0.25


def test_rl_answers_are_the_one_column_that_rises_and_only_with_tulus_70b_run():
    gpt = number("instructgpt", "ppo", "answers")
    r1 = sum(number("deepseek_r1", stage, "answers") for stage in ("zero", "r1"))
    ablations = number("tulu3", "rlvr", "answers", version="arXiv v5")
    large = number("tulu3", "rlvr", "answers, 70B")
    assert ablations < gpt < large < r1 and 24 < r1 / gpt < 25
    assert number("tulu3", "rlvr", "size") < number("instructgpt", "ppo", "size")
    assert "256,000 → 400,000 → 6.2 million" in PROSE
    assert (gpt, large, round(r1 / 1e6, 1)) == (256_000, 400_000, 6.2)


def test_printed_sizes_lie_within_two_powers_of_ten():
    stages = {
        "instructgpt": ("sft", "reward", "ppo"),
        "tulu3": ("sft", "dpo", "rlvr"),
        "deepseek_r1": ("zero", "cold", "reasoning", "sft", "reward", "r1"),
    }
    sizes = [
        number(name, each, "size") for name, some in stages.items() for each in some
    ]
    printed = [size for size in sizes if not math.isnan(size)]
    assert len(sizes) - len(printed) == 2
    assert max(printed) < 100 * min(printed)


# ----------------------------------------------------------------- what a token costs


@pytest.mark.parametrize("width, layers", [(32, 1), (64, 2), (48, 3)])
def test_reading_a_token_is_two_operations_a_weight_and_backward_twice_that(
    width, layers
):
    config = Config(vocabulary=50, width=width, layers=layers, hidden=2 * width)
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    forward, logits = counted(lambda: model(torch.zeros(3, 20, dtype=torch.long)))
    backward, _ = counted(logits.sum().backward)
    assert forward == 2 * matrices * 60
    assert backward == 2 * forward


def test_learning_through_frozen_weights_saves_a_third_and_not_two():
    layer = torch.nn.Linear(20, 30, bias=False).requires_grad_(False)
    x = torch.randn(7, 20, requires_grad=True)
    forward, out = counted(lambda: layer(x))
    backward, _ = counted(out.sum().backward)
    assert backward == forward


def test_the_record_was_made_for_seven_models_from_20_thousand_to_5_million_weights():
    weights = [model["weights"] for model in MODELS.values()]
    assert len(weights) == 7
    assert min(weights) == pytest.approx(20_000, rel=0.05)
    assert max(weights) == pytest.approx(5_300_000, rel=0.05)
    for model in MODELS.values():
        assert all(len(model[task]["seconds"]) == 5 for task in TASKS)


@pytest.mark.parametrize(
    "task, rule, spread",
    [("SFT", 6, 0.11), ("DPO", 8, 0.05), ("GRPO, learning", 8, 0.06)],
)
def test_counted_operations_are_those_of_the_rule_from_two_layers_on(
    task, rule, spread
):
    for model in [*MODELS.values()][1:]:
        each = model[task]["flops"] / model["weights"] / model[task]["tokens"]
        assert each == pytest.approx(rule, rel=spread)


def test_sampling_comes_nearer_to_two_as_models_grow_wider():
    each = [
        m["GRPO, sampling"]["flops"] / m["weights"] / m["GRPO, sampling"]["tokens"]
        for m in GROWING
    ]
    assert each[0] > each[1] > each[2] > each[3] > each[4]
    assert 2 < each[-1] < 2.25


@pytest.mark.parametrize("task", TASKS)
def test_seconds_grow_more_slowly_than_weights_and_faster_at_the_end(task):
    weights = np.log([model["weights"] for model in GROWING])
    seconds = np.log([model[task]["seconds"] for model in GROWING])
    slopes = [np.polyfit(weights, each, 1)[0] for each in seconds.T]
    best = seconds.min(1)
    end = (best[-1] - best[-2]) / (weights[-1] - weights[-2])
    assert 0.6 < min(slopes) and max(slopes) < 0.8
    assert max(slopes) - min(slopes) < 0.1
    assert 0.8 <= end < 1


def test_sampling_is_a_smaller_part_of_grpo_in_larger_models():
    def part(model):
        one, two = (min(model[task]["seconds"]) for task in TASKS[2:])
        return one / (one + two)

    assert part(GROWING[0]) == pytest.approx(0.41, abs=0.01)
    assert part(GROWING[-1]) == pytest.approx(0.25, abs=0.01)


def test_a_token_is_sixteen_times_cheaper_in_company():
    alone, together = (
        min(each[count] for each in CROWD) / int(count) for count in ("1", "128")
    )
    assert 15 < alone / together < 17


def test_deep_models_are_slower_than_wide_ones_of_the_same_weight():
    deep, wide = (MODELS[shape] for shape in ("64 x 16", "128 x 4"))
    assert deep["weights"] == pytest.approx(wide["weights"], rel=0.03)
    for task in TASKS:
        assert min(deep[task]["seconds"]) > 1.3 * min(wide[task]["seconds"])


# ------------------------------------------------------------------- what a run costs


def test_the_rule_gives_instructgpts_published_costs():
    gpt = "instructgpt"
    text = number(gpt, "base", "weights") * number(gpt, "ppo", "longest row") / DAY
    sft = 6 * text * number(gpt, "sft", "size") * number(gpt, "sft", "epochs")
    answers = number(gpt, "ppo", "answers")
    rl = 10 * text * answers
    ptx = 6 * text * answers * number(gpt, "ppo", "old texts per answer")
    assert sft == pytest.approx(number(gpt, "sft", "compute"), rel=0.04)
    assert rl + ptx == pytest.approx(number(gpt, "ppo", "compute"), rel=0.04)
    assert ptx / (rl + ptx) == pytest.approx(5 / 6, abs=0.01)
    assert f"{rl:.1f} of {sft + rl + ptx:.1f}" in PROSE
    assert rl / sft == pytest.approx(2, abs=0.2)


def test_rl_took_the_larger_part_of_tulu_and_r1_and_all_of_it_little_of_pretraining():
    tulu = {
        s: number("tulu3", s, "GPU hours") for s in ("sft", "dpo", "reward", "rlvr")
    }
    assert sum(tulu.values()) == 864 and tulu["rlvr"] / 864 > 0.6
    r1 = {s: number("deepseek_r1", s, "GPU hours") for s in ("zero", "all", "base")}
    assert r1["zero"] / r1["all"] > 0.68
    assert 0.05 < r1["all"] / r1["base"] < 0.06


def test_r1_zeros_gpus_were_less_busy_than_in_pretraining_at_any_length():
    base = {
        what: number("deepseek_r1", "base", what)
        for what in ("weights at work", "tokens", "GPU hours", "peak speed")
    }
    peak = base["peak speed"] * 3600
    before = 6 * base["weights at work"] * base["tokens"] / base["GPU hours"] / peak
    answers, hours = (
        number("deepseek_r1", "zero", w) for w in ("answers", "GPU hours")
    )
    most = 10 * base["weights at work"] * answers * 39_701 / hours / peak
    assert before == pytest.approx(0.346, abs=0.001)
    assert most < 0.22 < before


def test_answers_of_instructgpt_are_those_of_its_settings():
    assert instructgpt.ASKED * instructgpt.UPDATES == 640
    assert 640 * instructgpt.ANSWERS == 2_560


def test_answers_of_tulu3_are_those_of_its_settings():
    questions = sum(tulu3.ASKED.values()) * tulu3.UPDATES
    assert (questions, questions * tulu3.GROUP) == (432, 3_456)
    done = tulu3_runs.RECORD.read()["runs"]["recipe"]["0"]
    assert done["sft"]["shown"] == tulu3.GAMES + 4 * tulu3.EACH == 1_640
    assert len(done["rlvr"]["curves"]["length"]) == tulu3.UPDATES / 2


def test_answers_of_r1_are_those_of_its_settings():
    assert 16 * 16 * deepseek_r1.REASONING == 6_144  # questions, answers to each
    assert sum(deepseek_r1.MIX.values()) * 8 * deepseek_r1.EVERYTHING == 12_288
