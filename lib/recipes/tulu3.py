"""Tülu 3 (Lambert et al. 2024): a broad mix, on-policy preferences, verifiable rewards.

Sizes are the paper's: demonstrations of the SFT mix, preference pairs of the 8B mix,
prompts of RLVR; prompts too near to the evaluations are left out. The last stage is
GRPO, as in Tülu 3.1; the first release used PPO ("PPO" of the ablations). Its number of
updates is our choice: 8,000 of 16 prompts, which asks each about four times.
"""

from functools import partial

from lib.recipes.prompts import clean, mixed, skill, skills, talk
from lib.recipes.stages import BASE, Recipe, Stage
from lib.recipes.tools import dpo_stage, rl_stage, sft_stage
from lib.rewards import verified

PREFERRED = {"beta": 5.0, "lr": 1.5e-4}
everything = clean(mixed((0.5, talk), (0.5, skills())))
chat = clean(talk)
verifiable = clean(mixed((0.5, skill("reverse")), (0.5, skill("words"))))
rlvr = partial(rl_stage, verifiable, verified, max_tokens=16)

RECIPE = Recipe(
    name="tulu3",
    title="Tülu 3 (2024)",
    paper="Lambert et al. 2024",
    stages=(
        Stage(
            name="sft",
            title="Instruction fine-tuning",
            tool="instruction tuning",
            start=BASE,
            published=939_344,
            unit="demonstrations",
            run=sft_stage(epochs=2, lr=3e-3, clean=True),
        ),
        Stage(
            name="dpo",
            title="On-policy DPO",
            tool="direct alignment",
            start="sft",
            published=271_409,
            unit="preference pairs",
            run=dpo_stage(chat, **PREFERRED),
        ),
        Stage(
            name="rlvr",
            title="RLVR",
            tool="policy gradients",
            start="dpo",
            published=29_946,
            unit="prompts",
            run=rlvr(lr=2.5e-4, beta=0.1),
            updates=8_000,
        ),
    ),
)

ABLATIONS = {
    "no SFT": RECIPE.without("sft"),
    "no DPO": RECIPE.without("dpo"),
    "skills in DPO too": RECIPE.changed("dpo", run=dpo_stage(everything, **PREFERRED)),
    "off-policy pairs": RECIPE.changed("dpo", uses=BASE),
    "no KL": RECIPE.changed("rlvr", run=rlvr(lr=2.5e-4)),
    "PPO": RECIPE.changed("rlvr", run=rlvr(lr=2.5e-4, beta=0.1, algorithm="PPO")),
}
