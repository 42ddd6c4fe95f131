"""Make the models that the chapters read from the cache, before two tests want them at once.

`python -m tools.models` takes some three minutes the first time, and a second after that.
"""

import torch

from lib.reward_model import RewardModel, SurprisalRewardModel
from lib.villagers import proxy_model


def main() -> None:
    """The base model, the instruction-tuned one, and two reward models on top of it."""
    torch.set_num_threads(1)
    for kind in (RewardModel, SurprisalRewardModel):
        proxy_model(kind=kind)


if __name__ == "__main__":
    main()
