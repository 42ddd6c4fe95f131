"""What several processes do, measured: torchrun … tests/processes.py CHECK OUT [KILLS].

Each check trains alone and with the others and says how far apart they end; rank 0
writes that as JSON. tests/test_distributed.py says how far is too far. `killed` takes
"update:rank,…": so many attempts end with that rank killed at that update. By hand:

    torchrun --standalone --nproc-per-node=2 --max-restarts=5 tests/processes.py \
        killed /tmp/killed.json 3:1,5:0,6:1,9:0,11:1
"""

import copy
import json
import os
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from lib import direct, distributed, on_policy, reward_model, sft  # noqa: E402
from lib.algorithms import ALGORITHMS  # noqa: E402
from lib.logps import action_logps  # noqa: E402
from lib.losses.policy_gradient import clipped_value  # noqa: E402
from lib.losses.preference import dpo  # noqa: E402
from lib.models.transformer import Config, Transformer  # noqa: E402
from lib.preference_data import PreferencePairs  # noqa: E402
from lib.reward_model import RewardModel, SurprisalRewardModel  # noqa: E402
from lib.rollout import Batch, Rollout  # noqa: E402
from lib.seeds import generator  # noqa: E402
from lib.train import fit  # noqa: E402
from lib.worlds.language import TOKENIZER  # noqa: E402
from lib.worlds.tasks import tasks  # noqa: E402

SIZES = {"context": 64, "layers": 2, "width": 16, "heads": 2, "hidden": 16}
DOUBLE = torch.float64


class Brief(Transformer):
    """One that likes to stop, so that ranks write for longer or shorter."""

    def logits(self, hidden):
        likes = torch.zeros(self.config.vocabulary, dtype=hidden.dtype)
        likes[TOKENIZER.end] = 4.0
        return super().logits(hidden) + likes


def fresh(dtype=DOUBLE, kind=Transformer, vocabulary=12):
    config = Config(vocabulary, **SIZES)
    return kind(config, generator=generator("a model"), dtype=dtype)


def written(rows, *, group=2, dtype=DOUBLE, name="rows"):
    """Answers of 1 … 9 tokens, `group` to a prompt of 3."""
    draw = generator(name, rows)
    tokens = torch.randint(3, 12, (rows, 13), generator=draw)
    tokens[:, :3] = tokens[::group, :3].repeat_interleave(group, 0)
    lengths = torch.randint(1, 10, (rows, 1), generator=draw)
    places = torch.arange(12)
    mask = (places >= 2) & (places < 2 + lengths)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=torch.zeros(mask.shape, dtype=dtype),
        rewards=torch.zeros(mask.shape, dtype=dtype),
        mask=mask,
        last_states=tokens[:, -1],
        terminated=torch.ones(rows, dtype=torch.bool),
    )


def credited(rows, model, dtype):
    """Answers of a policy that has moved a little since, with credit."""
    rollout, draw = written(rows, dtype=dtype), generator("credit", rows)
    shape = rollout.mask.shape

    def noise(scale):
        found = torch.randn(shape, generator=draw, dtype=DOUBLE) * scale
        return found.to(dtype)

    with torch.no_grad():
        now = action_logps(model, rollout, group=2)
    rollout = Rollout(**{**vars(rollout), "logps": now + noise(1e-4)})
    each = torch.randn((rows, 1), generator=draw, dtype=DOUBLE).to(dtype)
    return Batch(
        rollout=rollout,
        advantages=each.expand(shape),
        values=noise(1.0),
        returns=noise(1.0),
        group=2,
        ref_logps=now + noise(0.3),
        beta=0.1,
        length=16,
    )


def pairs(rows, dtype):
    chosen, rejected = (
        written(rows, group=1, dtype=dtype, name=name) for name in ("good", "bad")
    )
    begin = chosen.states[:, :3]
    states = torch.cat((begin, rejected.states[:, 3:]), 1)
    actions = torch.cat((begin[:, 1:], rejected.actions[:, 2:]), 1)
    rejected = Rollout(**{**vars(rejected), "states": states, "actions": actions})
    asked, gold = [None] * rows, torch.zeros(rows, dtype=DOUBLE)
    return PreferencePairs(asked, chosen, rejected, gold, gold)


def losses(model, dtype):
    """name -> (loss of a model and a part, batch, what it is a mean over)."""
    batch, found = credited(8, model, dtype), {}
    for name, algorithm in ALGORITHMS.items():

        def loss(policy, part, algorithm=algorithm):
            logps = action_logps(policy, part.rollout, group=2)
            return algorithm.policy_loss(logps, part)

        if name != "MaxRL":  # REINFORCE's loss
            found[name] = loss, batch, algorithm.over
    found["sft"] = sft.sft_loss, batch.rollout, "tokens"
    whole = direct.with_reference(pairs(8, dtype), dpo, model, per_token=False)
    found["dpo"] = whole.loss, torch.arange(8), whole.over
    return found


def judged(model, dtype):
    """The same for what reads with a reward model."""

    def value_loss(critic, part):
        mask, values = part.rollout.mask, critic(part.rollout.states)
        return clipped_value(values, part.values, part.returns, mask)

    prefer = partial(reward_model.preference_loss, centre=0.01)
    return {
        "clipped_value": (value_loss, credited(8, model, dtype), "tokens"),
        "bradley_terry": (prefer, pairs(8, dtype), "rows"),
    }


class Loss(nn.Module):
    """A loss as a module's forward, which is what DistributedDataParallel hooks."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, part):
        return self.loss(self.model, part)[0]


def grads(model):
    each = [w.grad for w in model.parameters() if w.grad is not None]
    each = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in each]
    return torch.cat([g.flatten() for g in each]).double()


def apart(one, other):
    return ((one - other).norm() / other.norm()).item()


def amount(part, over):
    if over == "rows":
        return len(part)
    return int(getattr(part, "rollout", part).mask.sum())


def gradients(dtype):
    """Relative errors: name of the loss -> shares -> way -> error."""
    model = fresh(dtype)
    critic = RewardModel(model)
    with torch.no_grad():
        critic.head.weight += 0.1
    told = {}
    for start, table in ((model, losses(model, dtype)), (critic, judged(model, dtype))):
        pieces = distributed.shard(copy.deepcopy(start))
        for name, (loss, batch, over) in table.items():
            told[name] = {
                shares: compared(start, pieces, loss, batch, over, own)
                for shares, own in SHARES
            }
    return told


SHARES = (("even", (4, 4)), ("uneven", (2, 6)))  # rows of each rank


def compared(start, pieces, loss, batch, over, own):
    mine = torch.arange(len(batch)).split(own)[distributed.rank()]
    part = batch[mine] if isinstance(batch, torch.Tensor) else batch.rows(mine)
    n = amount(part, over)

    def backward(model, scale):
        model.zero_grad()
        scale(loss(model, part)[0]).backward()
        distributed.average_gradients(model.parameters())
        return grads(model)

    whole = copy.deepcopy(start)
    loss(whole, batch)[0].backward()
    want, weigh = grads(whole), partial(distributed.weighted, n=n)
    hooked = DistributedDataParallel(Loss(copy.deepcopy(start), loss))
    weigh(hooked(part)).backward()
    return {
        "all-reduce": apart(backward(copy.deepcopy(start), weigh), want),
        "DDP": apart(grads(hooked), want),
        "FSDP2": apart(backward(pieces, weigh), want),
        "plain mean": apart(backward(copy.deepcopy(start), lambda x: x), want),
    }


# --- training -------------------------------------------------------------------------


def weights(model):
    each = [w.detach() for w in model.parameters()]
    each = [w.full_tensor() if hasattr(w, "full_tensor") else w for w in each]
    return torch.cat([w.flatten() for w in each])


def distance(one, other):
    return (weights(one) - weights(other)).abs().max().item()


def imitated(model, **settings):
    """20 updates of 5 rows, some of one, by which a rank has none."""
    shown = written(20, group=1)
    rows = [torch.arange(5) + i % 15 for i in range(20)]
    rows[3] = rows[12] = torch.tensor([7])
    batches = [shown.rows(some) for some in rows]
    history = fit(model, batches, sft.sft_loss, lr=1e-2, over="tokens", **settings)
    return model, history


def together_and_alone(train):
    """What `train` returns with the others, and by itself."""
    together = train()
    with distributed.alone():
        return together, train()


def fitted():
    told = {}
    (one, seen), (other, want) = together_and_alone(lambda: imitated(fresh()))
    told["sft"] = distance(one, other)
    told["loss"] = max(abs(a - b) for a, b in zip(seen["loss"], want["loss"]))
    parts = imitated(fresh(), microbatches=2)[0]
    told["sft in microbatches"] = distance(parts, other)
    pieces = imitated(distributed.shard(fresh()), microbatches=2)[0]
    told["sft in pieces"] = distance(pieces, other)
    some = pairs(10, DOUBLE)
    (one, _), (other, _) = together_and_alone(
        lambda: direct.align(fresh(), some, dpo, epochs=7, batch=4, lr=1e-2, seed=0)
    )
    told["dpo"] = distance(one, other)
    (one, _), (other, _) = together_and_alone(lambda: preferring(some))
    told["reward model"] = distance(one, other)
    return told


def preferring(some):
    """A reward model with a frozen part, of 7 epochs of three batches, the last of two."""
    settings = {"epochs": 7, "batch": 4, "lr": 1e-2, "kind": SurprisalRewardModel}
    return reward_model.fit_reward_model(fresh(), some, **settings)


def rl(name, updates, *, sharded=False):
    """Updates of three tasks, or of one, by which a rank has none; ranks' steps."""
    model = fresh(kind=Brief, vocabulary=len(TOKENIZER))
    pool = tasks("strings", count=9, seed=0)
    steps = []

    def ask(update):
        return pool[:1] if update % 4 == 2 else pool[update % 6 :][:3]

    def reward(asked, rollout):
        return rollout.lengths.double() % 3 - (rollout.actions[:, -1] == 5).double()

    def counted(tokens, cache, real=Transformer.extend):
        steps[-1] += 1
        return real(policy[0], tokens, cache)

    policy = []

    def watch(update, learner):
        if not policy:
            policy.append(getattr(learner, "model", learner))
            object.__setattr__(policy[0], "extend", counted)
        steps.append(0)

    found, history = on_policy.train(
        model,
        ALGORITHMS[name],
        reward,
        ask,
        seed=0,
        updates=updates,
        lr=3e-3,
        config=on_policy.RLConfig(group=2, max_tokens=8, beta=0.05, epochs=2),
        watch=watch,
        sharded=sharded,
    )
    return found, history, steps


def noted(made, shard=distributed.shard):
    """`shard`, and all that it makes is kept in a list."""
    return lambda model: made.append(shard(model)) or made[-1]


def reinforced():
    told = {}
    for name, updates in (("GRPO", 20), ("PPO", 20), ("DAPO", 8)):
        one, seen, steps = rl(name, updates)
        made = []
        with mock.patch.object(distributed, "shard", noted(made)):
            pieces, *_ = rl(name, 8, sharded=True)
        with distributed.alone():
            other, want, _ = rl(name, updates)
            short, *_ = rl(name, 8)
        told[name] = {
            "weights": distance(one, other),
            "in pieces": distance(pieces, short),
            "sharded": [all(map(distributed.is_sharded, x.parameters())) for x in made],
            "moved": distance(one, fresh(kind=Brief, vocabulary=len(TOKENIZER))),
            "rewards equal": seen["reward"] == want["reward"],
            "answers equal": seen["answers"] == want["answers"],
            "steps": distributed.gathered(steps),
        }
    return told


def stepped(model, optimiser, count):
    shown = written(6, group=1).rows(distributed.share(6))
    for _ in range(count):
        optimiser.zero_grad()
        sft.sft_loss(model, shown)[0].backward()
        optimiser.step()
    return weights(model)


def kept(folder):
    """A sharded model saved after two steps, loaded, and two steps further."""
    model = distributed.shard(fresh())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    stepped(model, optimiser, 2)
    distributed.save_sharded(folder, model, optimiser, done=2)
    want = stepped(model, optimiser, 2)
    other = distributed.shard(fresh().requires_grad_(True))
    again = torch.optim.AdamW(other.parameters(), lr=1e-2)
    about = distributed.load_sharded(folder, other, again)
    return {
        "equal": torch.equal(want, stepped(other, again, 2)),
        "about": about,
        "here": sum(w.to_local().numel() for w in model.parameters()),
        "all": sum(w.numel() for w in model.parameters()),
    }


def unevenly_read():
    """Rank 1 alone reads with a sharded model, twice; then both learn: error of slopes."""
    pieces, whole, rows = distributed.shard(fresh()), fresh(), written(4)
    sft.sft_loss(whole, rows)[0].backward()
    told = []
    for _ in range(2):
        with torch.no_grad(), distributed.whole(pieces) as reader:
            for _ in range(2 * distributed.rank()):
                told.append(
                    (reader(rows.states) - whole(rows.states)).abs().max().item()
                )
        with torch.no_grad():
            pieces(rows.states)  # which drops again what it has collected
        assert all(map(distributed.is_sharded, pieces.parameters()))
        pieces.zero_grad()
        sft.sft_loss(pieces, rows)[0].backward()
        told.append(apart(grads(pieces), grads(whole)))
        assert all(map(distributed.is_sharded, pieces.parameters()))
    return max(told)


def refused():
    """What several processes are told that they cannot do."""
    said = []
    answers = written(4, group=1)
    kto = direct.unpaired_objective(answers, torch.arange(4) % 2 == 0, fresh())
    for wrong in (
        lambda: direct.train(fresh(), kto, lr=1e-2, seed=0),
        lambda: fit(fresh(), [answers], sft.sft_loss, lr=1e-2),
        lambda: fit(fresh(), [(1, 2)], sft.sft_loss, lr=1e-2, over="rows"),
    ):
        try:
            wrong()
            said.append("")
        except ValueError as error:
            said.append(str(error))
    return said


# --- what is run ----------------------------------------------------------------------


def everything(out, kills):
    began, told = time.perf_counter(), {"seconds": {}}
    for name, check in {
        "float32": partial(gradients, torch.float32),
        "float64": partial(gradients, DOUBLE),
        "fit": fitted,
        "rl": reinforced,
        "pieces": partial(kept, out.with_suffix(".pieces")),
        "unevenly": unevenly_read,
        "refused": refused,
    }.items():
        told[name] = check()
        told["seconds"][name] = round(time.perf_counter() - began, 1)
    return told


def killed(out, kills):
    """24 updates through so many deaths; the first attempt's clock is kept in a file."""
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    ends = [tuple(map(int, kill.split(":"))) for kill in kills.split(",")]
    shown, checkpoint = written(40, group=1), out.with_suffix(".pt")
    begun = [checkpoint.exists()]

    def batches(start):
        for update in range(start, 24):
            if attempt < len(ends) and ends[attempt] == (update, distributed.rank()):
                os.kill(os.getpid(), signal.SIGKILL)
            yield shown.rows(torch.arange(5) + update)

    settings = {"lr": 1e-2, "over": "tokens"}
    model = fresh()
    fit(model, batches, sft.sft_loss, checkpoint=checkpoint, every=2, **settings)
    with distributed.alone():
        attempt, other = len(ends), fresh()
        fit(other, batches, sft.sft_loss, **settings)
    attempts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    return {
        "weights": distance(model, other),
        "attempts": attempts,
        "resumed": begun[0],
    }


def met_again(out, kills):
    """Rank 1 dies while rank 0 is busy; then both meet, and add their numbers up."""
    busy, died = out.with_suffix(".busy"), out.with_suffix(".died")
    if not died.exists():
        if distributed.rank() == 0:
            busy.write_text("")
            time.sleep(240)  # torchrun ends this when the other has begun again
        while not busy.exists():  # or rank 0 would meet a dead one, and die of it
            time.sleep(0.02)
        died.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return {
        "sum": distributed.total(distributed.rank() + 1),
        "counts": distributed.gathered(os.environ["TORCHELASTIC_RESTART_COUNT"]),
    }


def main():
    name, out, *kills = sys.argv[1:]
    signal.alarm(300)  # nobody waits for ever
    torch.set_num_threads(1)
    distributed.start(patience=timedelta(seconds=60))
    known = {each.__name__: each for each in (everything, killed, met_again)}
    told = known[name](Path(out), *kills or [""])
    if distributed.rank() == 0:
        Path(out).write_text(json.dumps(told))
    distributed.stop()


if __name__ == "__main__":
    main()
