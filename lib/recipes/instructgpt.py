"""InstructGPT (Ouyang et al. 2022): demonstrations, a reward model, PPO.

Sizes are those of its Table 6; a demonstration, a prompt whose answers are ranked and a
prompt of PPO each count once. The published PPO wrote 256,000 answers, about eight to
each prompt; so does ours, 64 at each update.
"""

from lib.recipes.feedback import ppo_stage, reward_model_stage
from lib.recipes.stages import BASE, Recipe, Stage
from lib.recipes.tools import sft_stage
from lib.rewards import gold
from lib.worlds.village.taste import Annotators

RECIPE = Recipe(
    name="instructgpt",
    title="InstructGPT (2022)",
    paper="Ouyang et al. 2022",
    stages=(
        Stage(
            name="sft",
            title="Instruction fine-tuning",
            tool="instruction tuning",
            start=BASE,
            published=12_725,
            unit="demonstrations",
            run=sft_stage(epochs=16, lr=3e-3),
        ),
        Stage(
            name="reward",
            title="Reward model",
            tool="reward modelling",
            start="sft",
            published=33_207,
            unit="ranked prompts",
            run=reward_model_stage(),
            judges=True,
        ),
        Stage(
            name="ppo",
            title="PPO",
            tool="policy gradients",
            start="sft",
            published=31_144,
            unit="prompts",
            run=ppo_stage(),
            uses="reward",
            updates=256_000 // 64,
        ),
    ),
)

ABLATIONS = {
    "no SFT": RECIPE.without("sft"),
    "coins for rankings": RECIPE.changed(
        "reward", run=reward_model_stage(annotators=Annotators(error_rate=1.0))
    ),
    "gold for the reward model": RECIPE.changed("ppo", run=ppo_stage(reward=gold)),
    "no KL": RECIPE.changed("ppo", run=ppo_stage(beta=0.0)),
    "no ptx": RECIPE.changed("ppo", run=ppo_stage(ptx=0.0)),
}
