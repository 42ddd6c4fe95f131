"""The hand-over to TRL: one batch, and its trainers' loss and gradient are ours.

`make test-real` runs this. Nothing is downloaded: the model is random, the tokenizer
the valley's.
"""

import copy
import sys
from dataclasses import replace

import pytest
import torch
import transformers
import trl
from torch.testing import assert_close

from labs import trl_handover as handover
from lib import direct
from lib.algorithms import ALGORITHMS
from lib.logps import action_logps
from lib.losses import preference
from lib.models.causal_lm import CausalLM
from lib.on_policy import PolicyWithCritic, RLConfig, loss_of, make_batch
from lib.preference_data import PreferencePairs
from lib.rewards import of_text
from lib.rollout import of_tokens
from lib.sft import sft_loss, written
from lib.worlds.language import TOKENIZER
from lib.worlds.tasks import tasks

GROUP, ASKED, LR = 4, 3, 3e-3
TASKS = tasks("facts", count=ASKED, seed=0)
CHOSEN, REJECTED = ["yes", "the cook", "in a b 12"], ["no", "a", "I do not know it"]


def llama(*, seed=0):
    """A tiny random Llama over the valley's vocabulary."""
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=TOKENIZER.begin,
        eos_token_id=TOKENIZER.end,
        pad_token_id=TOKENIZER.pad,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():  # answers of every length
        model.lm_head.weight[TOKENIZER.end] *= 8
    return model.double()


@pytest.fixture
def step(tmp_path):
    """`step(Trainer, Config, settings, …)`: TRL's last step, and what it was made of.

    A trainer that notes the loss, its inputs and the gradient before it is clipped.
    """

    def run(trainer, config, settings, **given):
        noted = {}

        class Noting(trainer):
            def compute_loss(self, model, inputs, *args, **kwargs):
                noted["inputs"] = {**inputs}
                loss = super().compute_loss(model, inputs, *args, **kwargs)
                noted["loss"] = loss.detach().clone()
                return loss

            def training_step(self, model, *args, **kwargs):
                noted["weights"] = copy.deepcopy(model.state_dict())
                told = super().training_step(model, *args, **kwargs)
                noted["gradient"] = gradient(model)
                return told

        settings = {**settings, "use_cpu": True, "save_strategy": "no"}
        settings = {"max_steps": 1, **settings, "disable_tqdm": True}
        state = torch.random.get_rng_state()
        try:
            made = Noting(
                args=config(str(tmp_path), **settings),
                processing_class=handover.fast_tokenizer(TOKENIZER),
                **given,
            )
            made.train()
        finally:
            torch.random.set_rng_state(state)
        return noted

    return run


def gradient(module):
    return torch.cat([w.grad.flatten().double() for w in module.parameters()])


def same(noted, loss, module, *, within=1e-6):
    """Loss and gradient equal ours, by default to a millionth; there is a gradient."""
    loss.backward()
    ours, theirs = gradient(module), noted["gradient"]
    assert ours.norm() > 1e-3
    assert_close(noted["loss"].double(), loss.detach().double(), rtol=within, atol=1e-7)
    assert (ours - theirs).norm() < within * ours.norm()


# ------------------------------------------------------------------------------ the loop


def vowels(task, answer):
    return sum(c in "aeiou" for c in answer.text) - answer.finished / 3


EVERY = [("GRPO", 0.3), *((name, 0.0) for name in handover.LOSSES)]


@pytest.fixture
def update(step, tmp_path):
    """`update(name, beta, …)`: a step of GRPOTrainer, our loss of its answers, our model.

    The last of `epochs` steps on one set of answers.
    """

    def run(name, beta, epochs=1, **changes):
        config = RLConfig(GROUP, epochs, beta, max_tokens=9, temperature=0.9)
        algorithm, reward = ALGORITHMS[name], of_text(vowels)
        settings = handover.grpo(name, config, prompts=ASKED, updates=epochs, lr=LR)
        theirs, start = llama(), llama()
        with torch.no_grad():
            start.lm_head.weight *= 0.9  # the reference is another model, not far
        start.save_pretrained(tmp_path / "start")
        theirs.config._name_or_path = str(tmp_path / "start")  # TRL reads its reference
        ours = CausalLM(copy.deepcopy(theirs))
        noted = step(
            trl.GRPOTrainer,
            trl.GRPOConfig,
            settings | changes,
            model=theirs,
            reward_funcs=handover.reward_function(reward, tokenizer=TOKENIZER),
            train_dataset=handover.prompts(lambda update: TASKS, updates=1),
        )
        asked, answers, order = questions_and_answers(noted["inputs"])
        assert len({len(answer) for answer in answers}) > 1  # or all means are the same
        rollout = of_tokens(asked, answers, end=TOKENIZER.end, pad=TOKENIZER.pad)
        rewards = reward(TASKS, rollout).reshape(ASKED, GROUP)
        scored = {"temperature": config.temperature, "group": GROUP}
        with torch.no_grad():
            rollout = replace(rollout, logps=action_logps(ours, rollout, **scored))
        learner = PolicyWithCritic(ours)
        batch = make_batch(
            learner, algorithm, rollout, rewards, CausalLM(start), config
        )
        credit = noted["inputs"]["advantages"][order].double()
        assert_close(credit, batch.advantages[:, 0].double(), rtol=1e-5, atol=1e-6)
        ours.model.load_state_dict(noted["weights"])  # as they were before that step
        loss, metrics = loss_of(algorithm, config.temperature)(learner, batch)
        clipped = metrics.get("clip_fraction")  # SAPO has none
        assert clipped is None or (clipped > 0) == (epochs > 1)
        return noted, loss, ours

    return run


def questions_and_answers(seen):
    """What TRL asked and was answered, as token ids in our order; and that order."""
    asked, answers = (
        [ids[m.bool()].tolist() for ids, m in zip(seen[f"{x}_ids"], seen[f"{x}_mask"])]
        for x in ("prompt", "completion")
    )
    wanted = [[TOKENIZER.begin, *TOKENIZER.encode(t.prompt)] for t in TASKS]
    wanted = [ids for ids in wanted for _ in range(GROUP)]
    order = sorted(range(len(wanted)), key=lambda i: wanted.index(asked[i]))
    assert [asked[i] for i in order] == wanted
    return wanted, [answers[i] for i in order], order


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize(("name", "beta"), EVERY)
def test_an_update_of_grpo_trainer_has_our_loss_and_gradient(
    update, name, beta, epochs
):
    within = 1e-6 if epochs == 1 else 1e-5  # ratios: TRL keeps old logps in float32
    same(*update(name, beta, epochs), within=within)


def test_with_trls_own_default_for_the_penalty_the_gradient_is_another(update):
    noted, loss, ours = update("GRPO", 0.3, use_bias_correction_kl=True)
    loss.backward()
    theirs = noted["gradient"]
    assert_close(noted["loss"].double(), loss.detach(), rtol=1e-6, atol=1e-7)
    assert (gradient(ours) - theirs).norm() > 1e-3 * theirs.norm()


# ------------------------------------------------------------------- pairs, demonstrations


def test_one_update_of_dpo_trainer_has_our_loss_and_gradient(step):
    theirs, start = llama(), llama(seed=1)
    ours = CausalLM(copy.deepcopy(theirs))
    noted = step(
        trl.DPOTrainer,
        trl.DPOConfig,
        handover.dpo(beta=0.2, batch=3, lr=LR),
        model=theirs,
        ref_model=copy.deepcopy(start),
        train_dataset=handover.pairs(TASKS, CHOSEN, REJECTED),
    )
    sides = (written(TASKS, texts) for texts in (CHOSEN, REJECTED))
    worth = torch.zeros(3, dtype=torch.float64)
    pairs = PreferencePairs(TASKS, *sides, worth, worth)

    def loss_fn(*logps):
        return preference.dpo(*logps, beta=0.2)

    objective = direct.with_reference(pairs, loss_fn, CausalLM(start), per_token=False)
    loss, _ = objective.loss(ours, torch.arange(3))
    assert abs(loss.item() - 0.6931) > 0.01  # the reference is another model
    same(noted, loss, ours)


def test_one_update_of_sft_trainer_has_our_loss_and_gradient(step):
    theirs = llama()
    ours, shown = CausalLM(copy.deepcopy(theirs)), list(zip(TASKS, CHOSEN))
    noted = step(
        trl.SFTTrainer,
        trl.SFTConfig,
        handover.sft(batch=3, lr=LR),
        model=theirs,
        train_dataset=handover.demonstrations(shown),
    )
    loss, _ = sft_loss(ours, written(*zip(*shown)))
    same(noted, loss, ours)


# -------------------------------------------------------------------------- the tokenizer


def test_the_fast_tokenizer_reads_and_writes_like_the_valleys():
    fast = handover.fast_tokenizer(TOKENIZER)
    texts = [
        t.prompt
        for s in ("facts", "cups", "strings", "talk")
        for t in tasks(s, count=40, seed=1)
    ]
    texts += [
        "",
        " ",
        "foxes fox es\n\nQ: 12+3=15?",
        "A:  the cooks",
        "~!@#$%^&*()[]{}\\|",
    ]
    for text in texts:
        want = [TOKENIZER.begin, *TOKENIZER.encode(text)]
        assert fast(text)["input_ids"] == want
        assert fast.decode(want, skip_special_tokens=True) == text
    assert (fast.pad_token_id, fast.bos_token_id, fast.eos_token_id) == (0, 1, 2)


# --------------------------------------------------------------------------- refusals


def test_what_trl_has_not_is_refused(refuses):
    known = ", ".join(map(repr, handover.LOSSES))
    with refuses(f"algorithm: got 'PPO', wanted one of {known}"):
        handover.grpo("PPO", prompts=1, updates=1, lr=LR)
    with refuses(
        "config.beta: got 0.1, wanted 0 for DAPO: TRL's penalty is in the loss"
    ):
        handover.grpo("DAPO", RLConfig(beta=0.1), prompts=1, updates=1, lr=LR)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        handover.prompts(lambda update: TASKS, updates=1)
    line = "datasets is missing: pip install -r requirements-trl.txt"
    assert str(caught.value) == line


def test_epochs_and_updates_go_along():
    settings = handover.grpo(
        "GRPO", RLConfig(group=4, epochs=2), prompts=3, updates=6, lr=LR
    )
    made = trl.GRPOConfig("out", use_cpu=True, **settings)
    assert (made.num_iterations, made.max_steps, made.num_generations) == (2, 6, 4)
    assert made.generation_batch_size == 12
