"""CartPole-v1 to a mean return of 475: chapter 2's PPO beside Stable-Baselines3's.

Both learn until three greedy evaluations in a row, 1,024 actions apart, reach a mean of
475 over 100 episodes of gymnasium's own environment. Evaluation, imports and the building
of the model are not timed. Each run is a process of its own with one thread; the two take
turns, seed by seed. Run from the repository's root: python -m benchmarks.cartpole
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

TARGET, EVERY, EPISODES = 475, 1024, 100
PEERS = ("book", "stable-baselines3")


class Meter:
    """CPU seconds of training, with the clock stopped during evaluations."""

    def __init__(self) -> None:
        self.seconds, self.passed, self.due = 0.0, 0, EVERY
        self.begin = time.process_time()

    def solved(self, taken: int, act: Callable) -> bool:
        """Evaluate if it is time; True after three passes in a row."""
        if taken >= self.due:
            self.seconds += time.process_time() - self.begin
            self.due = (taken // EVERY + 1) * EVERY
            self.passed = self.passed + 1 if mean_return(act, taken) >= TARGET else 0
            self.begin = time.process_time()
        return self.passed == 3


def mean_return(act: Callable, seed: int) -> float:
    """Mean over the first episode of each of 100 copies of CartPole-v1."""
    import gymnasium
    import numpy as np

    envs = gymnasium.make_vec(
        "CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point"
    )
    states, _ = envs.reset(seed=seed)
    alive, returns = np.ones(EPISODES, bool), np.zeros(EPISODES)
    while alive.any():
        states, rewards, terminated, truncated, _ = envs.step(act(states))
        returns += rewards * alive
        alive &= ~(terminated | truncated)
    return returns.mean()


def book(seed: int) -> tuple[Meter, int]:
    """The PPO of labs/agents.py, as the page shows it."""
    import torch

    from labs import agents
    from lib.worlds import cartpole

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # its first import is slow
    meter = Meter()

    def watch(model, taken, rollout) -> bool:  # noqa: ANN001
        def act(states):  # noqa: ANN001, ANN202
            return model(torch.as_tensor(states).double()).argmax(-1).numpy()

        with torch.no_grad():
            return meter.solved(taken, act)

    _, history = agents.train(
        agents.LADDER["PPO"], cartpole.world(), seed=seed, watch=watch
    )
    return meter, int(history["steps"][-1])


def stable_baselines3(seed: int) -> tuple[Meter, int]:
    """PPO with the settings that RL Baselines3 Zoo tuned for CartPole-v1."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    def falling(start: float) -> Callable:
        return lambda left: start * left

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=seed),
        n_steps=32,
        batch_size=256,
        gae_lambda=0.8,
        gamma=0.98,
        n_epochs=20,
        ent_coef=0.0,
        learning_rate=falling(1e-3),
        clip_range=falling(0.2),
        seed=seed,
        device="cpu",
    )

    class Watch(BaseCallback):
        done = False

        def _on_training_start(self) -> None:
            self.meter = Meter()

        def _on_rollout_start(self) -> None:
            def act(states):  # noqa: ANN001, ANN202
                return model.predict(states, deterministic=True)[0]

            self.done = self.meter.solved(self.num_timesteps, act)

        def _on_step(self) -> bool:
            return not self.done

    watch = Watch()
    model.learn(100_000, callback=watch)
    return watch.meter, model.num_timesteps


def one(peer: str, seed: int) -> None:
    """Run one learner and print one line of JSON."""
    import torch

    torch.set_num_threads(1)
    meter, taken = (book if peer == "book" else stable_baselines3)(seed)
    solved = meter.passed == 3
    print(json.dumps({"solved": solved, "seconds": meter.seconds, "actions": taken}))


def main() -> None:
    """All seeds of both, in turns, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return one(asked.one, asked.seeds[0])
    runs: dict[str, list[dict]] = {peer: [] for peer in PEERS}
    for seed in asked.seeds:
        for peer in PEERS:
            command = [sys.executable, "-m", "benchmarks.cartpole"]
            command += ["--one", peer, "--seeds", str(seed)]
            alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            done = subprocess.run(command, env=alone, check=True, capture_output=True)
            run = json.loads(done.stdout.splitlines()[-1])
            runs[peer].append(run)
            print(f"seed {seed}  {peer:18s} {run}", file=sys.stderr, flush=True)
    print(f"{platform.machine()}, Python {platform.python_version()}", end="")
    for package in ("torch", "gymnasium", "stable-baselines3"):
        print(f", {package} {version(package)}", end="")
    print("\n\n| to 475, three times running | solved | CPU s, median | actions, median |")
    print("|---|---|---|---|")
    for peer, results in runs.items():
        solved = sum(run["solved"] for run in results)
        seconds = statistics.median(
            run["seconds"] if run["solved"] else float("inf") for run in results
        )
        actions = statistics.median(run["actions"] for run in results)
        print(f"| {peer} | {solved} of {len(results)} | {seconds:.2f} | {actions:,.0f} |")


if __name__ == "__main__":
    main()
