"""DeepSeek R1 (DeepSeek-AI 2025): reasoning first, by reinforcement learning.

R1-Zero learns from the base model with nothing but a verifier; a few of its filtered
answers start a second model, which goes the same way faster; what that one answers best
is imitated by the base model together with general data; and a last round of RL mixes
verifiers with a preference reward. RL is published in steps: R1-Zero's are 10,400 of 32
questions with 16 answers each. The paper says "thousands" of cold-start samples (5,000
stands for that here) and does not count the steps of R1's first RL stage (R1-Zero's
number stands for it); of the last stage it gives 1,700 steps, and the first RL stage's
32 questions a step are assumed. Such sizes are marked `assumed`.
"""

from dataclasses import replace
from functools import partial

from lib.recipes.feedback import reward_model_stage
from lib.recipes.prompts import by_kind, mixed, right_and_reasoned, skill, talk
from lib.recipes.stages import BASE, Recipe, Stage
from lib.recipes.tools import rejection_stage, rl_stage

sums = skill("sum", 1, 2)
rl = partial(rl_stage, prompts=32, group=16)
reasoning = partial(rl, sums, right_and_reasoned, max_tokens=24)
last = partial(rl, mixed((0.5, sums), (0.5, talk)), by_kind, judged=True)

RECIPE = Recipe(
    name="deepseek_r1",
    title="DeepSeek R1 (2025)",
    paper="DeepSeek-AI 2025",
    stages=(
        Stage(
            name="zero",
            title="R1-Zero: RL on the base model",
            tool="policy gradients",
            start=BASE,
            published=332_800,
            unit="questions",
            run=reasoning(lr=1e-3, beta=0.001),
            updates=10_400,
        ),
        Stage(
            name="cold",
            title="Cold start",
            tool="instruction tuning",
            start=BASE,
            published=5_000,
            unit="samples",
            run=rejection_stage(sums, epochs=16, lr=6e-3),
            uses="zero",
            assumed=True,
        ),
        Stage(
            name="reasoning",
            title="Reasoning RL",
            tool="policy gradients",
            start="cold",
            published=332_800,
            unit="questions",
            run=reasoning(lr=1e-3, beta=0.001),
            assumed=True,
            updates=10_400,
        ),
        Stage(
            name="sft",
            title="Rejection sampling and SFT",
            tool="rejection sampling",
            start=BASE,
            published=800_000,
            unit="samples",
            run=rejection_stage(sums, general=0.25),
            uses="reasoning",
        ),
        Stage(
            name="reward",
            title="Preference reward model",
            tool="reward modelling",
            start="sft",
            published=66_000,
            unit="preference pairs",
            run=reward_model_stage(answers=(2,), batch=32, epochs=8),
            judges=True,
        ),
        Stage(
            name="r1",
            title="RL on everything",
            tool="policy gradients",
            start="sft",
            published=54_400,
            unit="questions",
            run=last(lr=5e-4, beta=0.1),
            uses="reward",
            assumed=True,
            updates=1_700,
        ),
    ),
)

many = RECIPE.changed("cold", published=100_000)

ABLATIONS = {
    "no cold start": RECIPE.without("cold"),
    "no reasoning RL": RECIPE.changed("sft", uses="cold").without("reasoning"),
    "reasoning alone in SFT": RECIPE.changed("sft", run=rejection_stage(sums)),
    "no KL in the last stage": RECIPE.changed("r1", run=last(lr=5e-4)),
    "verifiers alone at last": RECIPE.changed(
        "r1", run=rl(sums, right_and_reasoned, lr=5e-4, beta=0.1), uses=None
    ),
    "the lecture's cold start": replace(many, stages=many.stages[:3]),
}
