"""Imitation: cross-entropy of the shown tokens, by hand and with its gradient."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.losses.supervised import sft
from lib.ops import token_logps

T, F = True, False
NAN = math.nan
LOGPS = torch.tensor([[-1.0, -2.0, NAN], [-6.0, NAN, NAN]], dtype=torch.float64)
MASK = torch.tensor([[T, T, F], [T, F, F]])


def test_sft_is_the_mean_over_the_tokens_of_the_batch(grad_of):
    loss, metrics = sft(LOGPS, MASK)
    assert loss.item() == 3.0  # (1 + 2 + 6) / 3 tokens; a mean of means would be 3.75
    assert metrics == {"perplexity": pytest.approx(math.exp(3), abs=1e-12)}
    assert type(metrics["perplexity"]) is float
    (slope,) = grad_of(lambda x: sft(x, MASK)[0], LOGPS)
    third = -1 / 3
    want = torch.tensor([[third, third, 0], [third, 0, 0]], dtype=torch.float64)
    assert_close(slope, want, rtol=0, atol=1e-15)


def test_nothing_behind_the_mask_reaches_sft(unmoved):
    x = LOGPS.nan_to_num(-9.0)
    unmoved(lambda x: sft(x, MASK)[0], x, MASK)


def test_the_prompt_teaches_nothing_and_the_answer_does(seeded):
    logits = torch.randn(1, 4, 3, dtype=torch.float64, generator=seeded())
    logits.requires_grad_()
    answer = torch.tensor([[F, F, T, T]])
    loss, _ = sft(token_logps(logits, torch.tensor([[0, 1, 2, 0]])), answer)
    loss.backward()
    assert (logits.grad[0, :2] == 0).all()
    pushed = logits.grad[0, 2:]
    assert pushed[0].argmin() == 2 and pushed[1].argmin() == 0  # the shown go up
    by_hand = -torch.log_softmax(logits, -1)[0, [2, 3], [2, 0]].mean()
    assert_close(loss, by_hand)


def test_a_row_without_true_adds_nothing_and_a_batch_without_true_is_refused(refuses):
    mask = torch.tensor([[T, T, F], [F, F, F]])
    assert sft(LOGPS, mask)[0].item() == 1.5
    with refuses("mask: got no True at all, wanted at least one True to average"):
        sft(LOGPS, mask & False)


def test_a_shown_token_of_probability_zero_is_infinitely_surprising():
    loss, metrics = sft(torch.tensor([[-math.inf, -1.0]]), torch.tensor([[T, T]]))
    assert loss.item() == math.inf
    assert metrics == {"perplexity": math.inf}


def test_perplexity_is_finite_as_far_as_a_float_goes():
    mask = torch.tensor([[T]])
    for nats in (100.0, 700.0):
        _, metrics = sft(torch.tensor([[-nats]]), mask)  # float32 ends at 89 nats
        assert metrics["perplexity"] == pytest.approx(math.exp(nats), rel=1e-12)
    assert sft(torch.tensor([[-710.0]]), mask)[1] == {"perplexity": math.inf}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_many_tokens_in_half_precision_is_their_mean(dtype):
    loss, _ = sft(
        torch.full((1, 40_000), -3.0, dtype=dtype), torch.ones(1, 40_000).bool()
    )
    assert loss.item() == 3 and loss.dtype == dtype


def test_sft_says_what_it_refuses(refuses):
    with refuses(
        "logps: got NaN at index (0, 2), wanted no NaN where the mask is True"
    ):
        sft(LOGPS, MASK | True)
    with refuses("logps: got shape (2, 3), wanted shape (2,)"):
        sft(LOGPS, MASK[:, 0])
