"""A recipe as a picture: its boxes, and the arrows between them."""

import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lib.recipes import deepseek_r1, drawing, instructgpt
from lib.recipes.engine import Result
from lib.show import picture


@pytest.fixture
def drawn():
    says = {"base": "talk −0.50", "zero": "sums 0.60"}
    return drawing.pipeline(deepseek_r1.RECIPE, says, scale=0.01)


def patches(fig, kind):
    return [patch for patch in fig.axes[0].patches if isinstance(patch, kind)]


def test_a_box_says_which_sizes_are_assumed(drawn):
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert "50 samples of 5,000 (assumed)" in texts
    assert "3,328 questions of 332,800" in texts
    assert sum("(assumed)" in text for text in texts) == 3


def test_every_stage_has_a_box_that_says_what_it_is_and_how_much_of_it(drawn):
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert len(patches(drawn, FancyBboxPatch)) == 7
    assert texts[:2] == ["Base model", "talk −0.50"]
    assert texts[2:5] == [
        "R1-Zero: RL on the base model (zero)",
        "3,328 questions of 332,800",
        "sums 0.60",
    ]
    assert sum("Cold start" in text for text in texts) == 1


def test_solid_arrows_hand_on_weights_and_dashed_ones_judgement(drawn):
    arrows = patches(drawn, FancyArrowPatch)
    dashed = [arrow for arrow in arrows if arrow.get_linestyle() == "--"]
    assert len(arrows) - len(dashed) == 6 and len(dashed) == 3
    boxes = [box.get_y() for box in patches(drawn, FancyBboxPatch)]  # base first
    names = ["base", *(stage.name for stage in deepseek_r1.RECIPE.stages)]
    met = []
    for arrow in arrows:
        (_, start), (_, end) = arrow._posA_posB
        ends = []
        for y in (start, end):
            near = min(range(7), key=lambda i: abs(boxes[i] + drawing.HEIGHT / 2 - y))
            ends.append(names[near])
        met.append((*ends, arrow in dashed))
    wanted = []
    for stage in deepseek_r1.RECIPE.stages:
        wanted.append((stage.start, stage.name, False))
        wanted += [(stage.uses, stage.name, True)] if stage.uses else []
    assert met == wanted


def test_boxes_do_not_overlap_and_lie_inside(drawn):
    boxes = patches(drawn, FancyBboxPatch)
    low, high = drawn.axes[0].get_ylim()
    for above, below in zip(boxes, boxes[1:]):
        assert above.get_y() - below.get_y() > drawing.HEIGHT
    assert boxes[-1].get_y() > low and boxes[0].get_y() + drawing.HEIGHT < high
    left, right = drawn.axes[0].get_xlim()
    assert left < drawing.LEFT and drawing.LEFT + drawing.WIDTH < right


def test_the_colour_says_which_tool_and_the_picture_is_the_same_again():
    one, two = (drawing.pipeline(instructgpt.RECIPE, {}, scale=1) for _ in range(2))
    assert picture.svg(one) == picture.svg(two)
    edges = [box.get_edgecolor() for box in patches(one, FancyBboxPatch)]
    assert len(set(edges)) == 4  # base, instruction tuning, reward model, PPO


def result(stage, **history):
    zero = {"amount": 0, "unit": "", "updates": 2, "answers": 0, "seconds": 0.0}
    return Result(stage=stage, **zero, scores={}, history=history, samples=())


@pytest.mark.parametrize("count", [1, 2])
def test_a_stage_is_drawn_by_its_reward_or_else_its_loss(count):
    ppo = result("ppo", loss=[3.0, 1.0], reward=[0.1, 0.2])
    results = [result("base"), ppo, result("sft", loss=[2.0, 1.5])][: count + 1]
    fig = drawing.curves(results)
    assert [ax.get_ylabel() for ax in fig.axes] == ["reward", "loss"][:count]
    assert fig.axes[0].get_xlabel() == "update of ppo"
    drawn = [list(ax.lines[0].get_ydata()) for ax in fig.axes]
    assert drawn == [[0.1, 0.2], [2.0, 1.5]][:count]
