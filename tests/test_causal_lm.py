"""Any causal language model of transformers as a policy: what it reads, draws, learns."""

import copy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from lib.algorithms import ALGORITHMS
from lib.direct import align
from lib.logps import action_logps
from lib.losses.preference import dpo
from lib.models.causal_lm import CausalLM
from lib.on_policy import RLConfig, train
from lib.preference_data import PreferencePairs
from lib.rewards import of_text
from lib.sampling import complete
from lib.sft import written

close = partial(assert_close, rtol=0, atol=1e-12)
A, CONTEXT = 40, 48
SIZES = {
    "vocab_size": A,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "initializer_range": 0.3,  # loud, so that everything matters
}
WINDOW = {
    "initializer_range": 0.1,  # it multiplies embeddings by √width itself
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
KINDS = {"llama": {}, "qwen3": {}, "gemma3_text": WINDOW}
HEADS = {
    "gemma2": {"final_logit_softcapping": 0.5},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
}


def made(kind, **more):
    """A tiny random model of transformers, float64, the same at every call."""
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **more})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).double()


@pytest.fixture(params=KINDS)
def policy(request):
    return CausalLM(made(request.param, **KINDS[request.param]))


def tokens(*shape, seed=1):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(3, A, shape, generator=draws)


def weights(module):
    return torch.cat([w.detach().flatten() for w in module.parameters()])


# ------------------------------------------------------------------------------ reading


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS, *HEADS])
def test_the_logits_are_those_of_the_model_itself_whatever_its_head_does(kind):
    model = made(kind, **{**KINDS, **HEADS}[kind])
    policy, x = CausalLM(model), tokens(3, 20)
    want = model(x).logits
    assert want.std() > 0.05 and policy.context == CONTEXT
    close(policy(x), want)
    hidden = policy.hidden(x)
    close(policy.logits(hidden[1, 5:7]), want[1, 5:7])
    if kind in HEADS and kind != "gpt2":  # without its own business it would differ
        assert (model.lm_head(hidden) - want).abs().max() > 0.1


def test_what_the_head_is_asked_reaches_the_weights_of_head_and_trunk(policy):
    hidden = policy.hidden(tokens(2, 6))
    policy.logits(hidden[:, 3]).square().sum().backward()
    assert all(w.grad is not None for w in policy.parameters())
    names = [name for name, _ in policy.named_parameters()]
    assert len(names) == len(set(names)) == len([*policy.model.parameters()])


@torch.no_grad()
@pytest.mark.parametrize("group", [1, 3])
def test_a_cached_row_gives_what_rereading_it_gives(policy, group):
    lengths = torch.tensor([9, 1, 6])
    prompts, new = tokens(3, 9), tokens(8, 3 * group, seed=2)
    rows = [prompts[i // group, : lengths[i // group]] for i in range(3 * group)]
    logits, reading = policy.prefill(prompts, lengths, room=8, group=group)
    for step in range(9):
        close(logits, torch.stack([policy(row[None])[0, -1] for row in rows]))
        if step < 8:
            rows = [torch.cat((row, t[None])) for row, t in zip(rows, new[step])]
            logits = policy.extend(new[step], reading)
    assert len(rows[0]) == 17  # four windows of Gemma's


@torch.no_grad()
def test_what_stands_to_the_right_of_a_row_moves_nothing(policy):
    x = tokens(2, 20)
    short, want = x[:, :11].clone(), policy(x)
    close(policy(short), want[:, :11])
    x[:, 11:] = 0
    close(policy(x)[:, :11], want[:, :11])
    moved = x.clone()
    moved[:, 0] = 3 + (x[:, 0] - 2) % (A - 3)
    assert (policy(moved) - policy(x)).abs().amax((0, 2)).min() > 1e-6  # the left does


# ---------------------------------------------------------------------------- answering


@pytest.mark.parametrize("group", [1, 4])
def test_the_log_probabilities_that_it_draws_at_are_found_again(policy, seeded, group):
    prompts = [[1, 5, 6, 7, 8, 9, 10], [1, 11], [1]]
    drawn = complete(
        policy, prompts, end=2, max_tokens=12, generator=seeded(3), group=group
    )
    assert len(drawn) == 3 * group and drawn.lengths.max() > 4
    with torch.no_grad():
        close(action_logps(policy, drawn, group=group), drawn.logps)
    reread = complete(
        nn.Sequential(policy),  # one that has no cache
        prompts,
        end=2,
        max_tokens=12,
        generator=seeded(3),
        group=group,
    )
    assert torch.equal(reread.actions, drawn.actions)
    close(reread.logps, drawn.logps)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_action_logps_are_the_log_softmax_of_each_token(policy, seeded, temperature):
    prompts = [[1, 5, 6, 7], [1, 11]]
    drawn = complete(policy, prompts, end=2, max_tokens=6, generator=seeded(), group=2)
    got = action_logps(policy, drawn, temperature=temperature, group=2)
    logits = policy.model(drawn.states).logits / temperature
    for row, place in drawn.mask.nonzero().tolist():
        want = logits[row, place].log_softmax(0)[drawn.actions[row, place]]
        close(got[row, place], want)
    assert (got[~drawn.mask] == 0).all()


# ----------------------------------------------------------------------------- learning


class Letters:
    """A tokenizer of 37 letters, behind pad, begin and end."""

    pad, begin, end = range(3)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789 "

    def encode(self, text):
        return [3 + self.letters.index(c) for c in text]

    def decode(self, ids):
        return "".join(self.letters[i - 3] for i in ids if i > 2)


@dataclass(frozen=True)
class Question:
    prompt: str
    tokenizer = Letters()


QUESTIONS = [Question("say a"), Question("b"), Question("what is c")]
vowels = of_text(lambda task, answer: sum(c in "aeiou" for c in answer.text) / 6)


def test_grpo_moves_a_copy_and_leaves_the_given_model_alone(policy):
    before = weights(policy)
    config = RLConfig(group=4, max_tokens=6, beta=0.01)
    trained, history = train(
        policy,
        ALGORITHMS["GRPO"],
        vowels,
        lambda update: QUESTIONS,
        seed=0,
        updates=3,
        lr=1e-3,
        config=config,
        tokenizer=Letters(),
    )
    assert torch.equal(weights(policy), before)
    assert (weights(trained) - before).abs().max() > 1e-4
    assert abs(history["kl"][0]) < 1e-12 < 1e-6 < abs(history["kl"][2])
    assert history["approx_kl"][0] == pytest.approx(0, abs=1e-12)  # drew what it scores
    assert max(history["grad_norm"]) > 0


def pairs():
    """Three pairs of answers that somebody wrote."""
    sides = (
        written(QUESTIONS, texts) for texts in (["a", "be", "3c"], ["x9", "b", "c"])
    )
    worth = torch.zeros(3, dtype=torch.float64)
    return PreferencePairs(QUESTIONS, *sides, worth + 1, worth)


def test_dpo_moves_a_copy_towards_the_chosen_answers(policy):
    before = weights(policy)
    trained, history = align(policy, pairs(), dpo, epochs=3, batch=3, lr=1e-3, seed=0)
    assert torch.equal(weights(policy), before)
    assert (weights(trained) - before).abs().max() > 1e-5
    assert history["loss"][0] == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert history["margin"][0] == pytest.approx(0, abs=1e-12)
    assert history["margin"][2] > history["margin"][1] > 0  # a step down the gradient


def test_a_copy_shares_no_weight_and_ties_its_own():
    model = made("llama", tie_word_embeddings=True)
    twin = copy.deepcopy(CausalLM(model))
    assert twin.model.lm_head.weight is twin.model.get_input_embeddings().weight
    assert not {id(w) for w in twin.parameters()} & {id(w) for w in model.parameters()}
    with torch.no_grad():
        twin.model.lm_head.weight.zero_()
        assert (twin(tokens(1, 4)) == 0).all()
        assert CausalLM(model)(tokens(1, 4)).abs().max() > 0.1


def test_dropout_is_off_so_that_two_readings_agree():
    model = made("gpt2", **HEADS["gpt2"]).train()
    policy, x = CausalLM(model), tokens(1, 9)
    assert torch.equal(policy(x), policy(x))


# --------------------------------------------------------------------------- refusals


def test_what_it_cannot_read_is_refused_by_name(refuses):
    with refuses("model: got Linear, wanted a causal language model of transformers"):
        CausalLM(nn.Linear(2, 2))
    wanted = "one whose head needs nothing of the trunk but what it makes"
    with refuses(f"model: got OPTForCausalLM, wanted {wanted}"):
        CausalLM(made("opt", ffn_dim=48, word_embed_proj_dim=32))
    policy, two = CausalLM(made("llama")), torch.tensor([2, 2])
    with refuses("tokens: got shape (3,), wanted shape (B, T)"):
        policy(tokens(3))
    with refuses(f"tokens: got {A} at index (0, 0), wanted integers in 0 … {A - 1}"):
        policy(torch.tensor([[A]]))
    with refuses(f"tokens: got {CONTEXT + 1} in a row, wanted 1 … 48, the context"):
        policy(tokens(1, CONTEXT + 1))
    with refuses("tokens: got 40 in a row and room for 9, wanted 1 … 48, the context"):
        policy.prefill(tokens(2, 40), two, room=9)
    with refuses("lengths: got 0, wanted at least one token in every prompt"):
        policy.prefill(tokens(2, 4), two - 2, room=1)
    with refuses("room: got 0, wanted an int of at least 1"):
        policy.prefill(tokens(2, 4), two, room=0)
    _, reading = policy.prefill(tokens(2, 4), two, room=1, group=2)
    with refuses("tokens: got shape (2,), wanted shape (4,)"):
        policy.extend(two, reading)
    policy.extend(tokens(4), reading)
    with refuses("tokens: got one more, wanted no more than there was room for"):
        policy.extend(tokens(4), reading)


def test_a_model_without_a_cache_of_keys_says_so(refuses):
    policy = CausalLM(made("mamba"))
    wanted = "one with a cache of keys and values"
    with refuses(f"model: got MambaForCausalLM, wanted {wanted}"):
        policy.prefill(tokens(1, 3), torch.tensor([3]), room=1)
