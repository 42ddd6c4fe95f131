"""The base model of the village: packing, the loss, the schedule, pretraining."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lib.models.transformer import Config, Transformer
from lib.train import fit, warm_cosine
from lib.villagers import (
    BATCH,
    CONFIG,
    LR,
    ROW,
    UPDATES,
    base_run,
    next_token_loss,
    pretrain,
    rows,
)
from lib.worlds.village import TOKENIZER
from lib.worlds.village.corpus import documents

TINY = Config(vocabulary=307, context=64, layers=1, width=16, heads=2, hidden=16)
PAD, BEGIN, END = 0, 1, 2
(A,) = TOKENIZER.encode("a")


def same(one, two):
    """Two models with bit-equal weights."""
    ours, theirs = one.state_dict(), two.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


# ---------------------------------------------------------------- rows


def test_the_base_model_is_this_large_and_reads_this_much():
    assert Config(vocabulary=307) == CONFIG
    assert (ROW, BATCH, UPDATES, LR) == (64, 8, 1800, 5e-3)
    defaults = {n: p.default for n, p in inspect.signature(pretrain).parameters.items()}
    assert defaults == {
        "seed": 0,
        "config": CONFIG,
        "updates": 1800,
        "progress": None,
    }


def test_documents_are_packed_whole_between_begin_and_end():
    packed = rows(["a", "aaa", "a", "aa"], length=7)
    assert packed.tolist() == [
        [BEGIN, A, END, BEGIN, A, A, A, END],  # 3 + 5 = 8: exactly full
        [BEGIN, A, END, BEGIN, A, A, END, PAD],
    ]
    assert packed.dtype == torch.int64


def test_a_document_that_does_not_fit_begins_a_row():
    packed = rows(["aa", "aaa", "aaaaa"], length=7)
    assert packed.tolist() == [
        [BEGIN, A, A, END, PAD, PAD, PAD, PAD],  # 4 + 5 = 9 > 8
        [BEGIN, A, A, A, END, PAD, PAD, PAD],
        [BEGIN, A, A, A, A, A, END, PAD],
    ]


def test_a_document_longer_than_a_row_is_cut():
    packed = rows(["a", "a" * 20, "a"], length=4)
    assert packed.tolist() == [
        [BEGIN, A, END, PAD, PAD],
        [BEGIN, A, A, A, A],
        [BEGIN, A, END, PAD, PAD],
    ]


def test_rows_have_sixty_four_tokens_to_foresee_unless_told_otherwise():
    texts = documents(count=300, seed=0)
    packed = rows(texts)
    assert packed.shape[1] == 65
    assert torch.equal(packed, rows(texts, length=64))
    words = [t for row in packed for t in row.tolist() if t != PAD]
    whole = [t for text in texts for t in (BEGIN, *TOKENIZER.encode(text), END)]
    assert words == whole  # nothing lost, nothing reordered


def test_rows_refuse_no_texts_and_no_length(refuses):
    with refuses("texts: got none, wanted at least one"):
        rows([])
    with refuses("length: got 0, wanted an int of at least 1"):
        rows(["a"], length=0)
    assert rows(["a"], length=1).tolist() == [[BEGIN, A]]


# ---------------------------------------------------------------- the loss


class Table(nn.Module):
    """A policy that says what it is told: logits (B, T, A), whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, states):
        self.read = states
        return self.logits


def test_every_token_is_foreseen_from_those_before_it():
    batch = torch.tensor([[BEGIN, 3, END, PAD], [BEGIN, 3, 4, END]])
    chances = torch.tensor([1.0, 1, 1, 3, 2], dtype=torch.float64)  # of 8
    model = Table(chances.log().expand(2, 3, 5).clone())
    loss, metrics = next_token_loss(model, batch)
    logs = [3, 1, 3, 2, 1]  # 3, end; 3, 4, end
    want = -sum(math.log(c / 8) for c in logs) / 5
    assert loss.item() == pytest.approx(want, abs=1e-14)
    assert metrics == {"perplexity": pytest.approx(math.exp(want))}
    assert torch.equal(model.read, batch[:, :-1])


def test_the_end_of_text_is_learned_and_padding_is_not(seeded):
    batch = torch.tensor([[BEGIN, 3, END, BEGIN, 4, END, PAD, PAD]])
    model = Table(torch.randn(1, 7, 5, generator=seeded(0), dtype=torch.float64))
    next_token_loss(model, batch)[0].backward()
    slope = model.logits.grad[0]
    for at, token in enumerate(batch[0, 1:6].tolist()):
        assert slope[at, token] < 0 and (slope[at] != 0).all()
    assert (slope[5:] == 0).all()


def test_what_is_said_after_the_end_of_a_row_changes_no_bit(seeded):
    batch = torch.tensor([[BEGIN, 3, END, PAD, PAD], [BEGIN, 3, 4, 3, END]])
    logits = torch.randn(2, 4, 5, generator=seeded(0))
    results = []
    for garbage in (0.0, 1e4, -1e30):
        dirty = logits.clone()
        dirty[0, 2:] = garbage * torch.arange(5)
        model = Table(dirty)
        loss, _ = next_token_loss(model, batch)
        loss.backward()
        results.append((loss, model.logits.grad))
    for loss, slope in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(slope, results[0][1])


def test_more_padding_changes_nothing(seeded):
    model = Transformer(TINY, generator=seeded(0), dtype=torch.float64)
    batch = rows(documents(count=5, seed=0), 40)
    wide = nn.functional.pad(batch, (0, 9))
    losses = [next_token_loss(model, b)[0] for b in (batch, wide)]
    slopes = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- the schedule


def test_the_learning_rate_climbs_then_falls_to_a_tenth():
    rate = warm_cosine(2.0, 100, warm=10)

    def fall(share):
        return 0.55 + 0.45 * math.cos(math.pi * share)

    assert rate(0) == pytest.approx(2 * 0.1)
    assert rate(4) == pytest.approx(2 * 0.5 * fall(0.04))
    assert rate(9) == pytest.approx(2 * fall(0.09))
    assert rate(10) == pytest.approx(2 * fall(0.1))
    assert rate(50) == pytest.approx(2 * 0.55)
    assert rate(100) == pytest.approx(2 * 0.1)
    assert rate(1000) == pytest.approx(2 * 0.1)
    climb = [rate(n) for n in range(10)]
    assert climb == sorted(climb) and max(map(rate, range(101))) == max(climb)


def test_it_climbs_for_fifty_updates_unless_told_otherwise():
    for update in (0, 48, 49, 50, 100):
        assert warm_cosine(1, 200)(update) == warm_cosine(1, 200, warm=50)(update)
    assert warm_cosine(1, 200)(0) == pytest.approx(0.02)


def test_impossible_schedules_are_refused(refuses):
    with refuses("peak: got 0, wanted a number above 0"):
        warm_cosine(0, 10)
    with refuses("updates: got 0, wanted an int of at least 1"):
        warm_cosine(1, 0)
    with refuses("warm: got 0, wanted an int of at least 1"):
        warm_cosine(1, 10, warm=0)
    assert warm_cosine(1, 1, warm=1)(0) == 1


# ---------------------------------------------------------------- pretraining


def test_pretraining_lowers_the_loss():
    model, history = pretrain(config=TINY, updates=40)
    assert history.keys() == {"loss", "grad_norm", "perplexity"}
    assert {len(column) for column in history.values()} == {40}
    assert abs(history["loss"][0] - math.log(307)) < 0.2  # it begins by knowing nothing
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert model.config == TINY


def test_the_same_seed_gives_the_same_model_bit_for_bit():
    before = torch.random.get_rng_state()
    one, history = pretrain(seed=3, config=TINY, updates=4)
    two, again = pretrain(seed=3, config=TINY, updates=4)
    other, _ = pretrain(seed=4, config=TINY, updates=4)
    assert same(one, two) and history == again
    assert not same(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pretraining_is_one_pass_over_freshly_written_documents():
    count = int(1.2 * 5 * 8 * 64 / 19.5)
    batches = rows(documents(count=count, seed=2), 64)[:40].split(8)
    by_hand = Transformer(TINY, generator=torch.Generator().manual_seed(2))
    lr = warm_cosine(5e-3, 5)
    history = fit(by_hand, batches, next_token_loss, lr=lr)
    model, same_history = pretrain(seed=2, config=TINY, updates=5)
    assert same(model, by_hand) and history == same_history
    assert len(history["loss"]) == 5


def test_enough_is_written_for_every_update():
    for updates in (1, 2, 5, 50):
        for seed in range(3):
            texts = documents(count=int(1.2 * updates * 8 * 64 / 19.5), seed=seed)
            assert len(rows(texts)) >= 8 * updates


def test_the_model_is_the_usual_one_unless_told_otherwise():
    model, history = pretrain(updates=1)
    assert model.config == CONFIG and len(history["loss"]) == 1
    assert same(model, pretrain(seed=0, updates=1, config=CONFIG)[0])


def test_progress_is_shown_if_it_has_a_name(capfd):
    pretrain(config=TINY, updates=2)
    assert capfd.readouterr() == ("", "")
    pretrain(config=TINY, updates=2, progress="reading")
    assert "2/2" in capfd.readouterr().err


def test_impossible_pretraining_is_refused(refuses):
    with refuses("seed: got -1, wanted an int of at least 0"):
        pretrain(seed=-1)
    with refuses("updates: got 0, wanted an int of at least 1"):
        pretrain(updates=0)
    with refuses("seed: got -1, wanted an int of at least 0"):
        base_run(seed=-1)
