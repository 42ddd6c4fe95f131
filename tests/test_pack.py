"""Pretraining: documents side by side in rows, which do not see each other."""

import math
import random

import pytest
import torch
from torch.testing import assert_close

from lib import pretrain
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.pretrain import OPEN, ROW, Packed, corpus, next_token_loss, pack
from lib.worlds.corpus import documents
from lib.worlds.language import TOKENIZER

TINY = Config(len(TOKENIZER), context=128, layers=2, width=16, heads=2, hidden=16)
PAD, BEGIN, END = TOKENIZER.pad, TOKENIZER.begin, TOKENIZER.end
(A,) = TOKENIZER.encode("a")
GAMES = (
    "Game: Red 2, blue 5. ant 1-5. two five ant 1-5 two one. 2 1",
    "Valley: Ada Ash lives by the tower.",
    "Q: Say the first letter of bdfk.\nA: b",
)


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def whole(text):
    """A document's tokens, between begin and end."""
    return [BEGIN, *TOKENIZER.encode(text), END]


def documents_of(packed):
    """The token lists that a reader of the rows finds, row by row."""
    found = []
    for tokens, document in zip(packed.tokens, packed.document):
        for number in range(int(document.max()) + 1):
            found.append(tokens[document == number].tolist())
    return found


# ---------------------------------------------------------------- rows


def test_a_document_goes_into_the_first_row_that_has_room():
    packed = pack(["aaa", "aaaa", "a", "aa", "a"], length=7)  # 5, 6, 3, 4, 3 tokens
    assert packed.tokens.tolist() == [
        [BEGIN, A, A, A, END, BEGIN, A, END],  # exactly full
        [BEGIN, A, A, A, A, END, PAD, PAD],
        [BEGIN, A, A, END, BEGIN, A, END, PAD],
    ]
    assert packed.document.tolist() == [
        [0, 0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, -1, -1],
        [0, 0, 0, 0, 1, 1, 1, -1],
    ]
    assert packed.tokens.dtype == packed.document.dtype == torch.int64
    assert len(packed) == 3


def test_packing_loses_no_token_and_keeps_every_document_whole():
    texts = documents(count=3000, seed=5, cups_worked=0.1)
    packed = pack(texts)
    assert packed.tokens.shape == packed.document.shape == (len(packed), ROW + 1)
    assert sorted(documents_of(packed)) == sorted(map(whole, texts))
    assert ((packed.document == -1) == (packed.tokens == PAD)).all()


def test_the_documents_of_a_row_stand_side_by_side_and_padding_at_its_end():
    packed = pack(documents(count=1000, seed=6))
    steps = packed.document.diff(dim=1)
    ended = packed.document[:, 1:] == -1
    assert (packed.document[:, 0] == 0).all()
    assert ((steps == 0) | (steps == 1) | ended).all()
    first = steps.ne(0) & ~ended
    assert (packed.tokens[:, 1:][first] == BEGIN).all() and first.any()


def test_a_full_row_is_rare_to_miss_and_most_are_almost_full():
    packed = pack(documents(count=6000, seed=7))
    assert (packed.tokens != PAD).double().mean() > 0.95


def test_only_the_last_sixteen_rows_take_documents():
    long, short = "a" * 6, "a"  # 8 tokens fill a row, 3 leave room for another
    texts = [short, *[long] * (OPEN - 1), short, short, long, short]
    packed = pack(texts, length=7)
    # row 0 takes two short ones (3 + 3 of 8 tokens), the third and fourth begin another
    two = [*whole("a"), *whole("a"), PAD, PAD]
    assert packed.tokens[0].tolist() == packed.tokens[OPEN].tolist() == two
    late = pack([short, *[long] * OPEN, short], length=7)
    assert late.tokens[0].tolist() == [*whole("a"), *[PAD] * 5]  # it is closed
    assert late.tokens[-1].tolist() == [*whole("a"), *[PAD] * 5]


def test_a_document_longer_than_a_row_is_cut_and_fills_it():
    packed = pack(["a" * 20, "a"], length=4)
    assert packed.tokens.tolist() == [[BEGIN, A, A, A, A], [BEGIN, A, END, PAD, PAD]]
    assert pack(["a"], length=1).tokens.tolist() == [[BEGIN, A]]


def test_packing_refuses_no_texts_and_no_length(refuses):
    with refuses("texts: got none, wanted at least one"):
        pack([])
    with refuses("length: got 0, wanted an int of at least 1"):
        pack(["a"], length=0)


def test_rows_are_split_into_batches_without_loss():
    packed = pack(documents(count=200, seed=1))
    parts = list(packed.split(8))
    assert [len(part) for part in parts[:-1]] == [8] * (len(parts) - 1)
    assert torch.equal(torch.cat([part.tokens for part in parts]), packed.tokens)
    assert torch.equal(torch.cat([part.document for part in parts]), packed.document)


# ---------------------------------------------------------------- the loss


def alone(model, text):
    """-log p of every token of a document after begin, read by itself."""
    ids = torch.tensor([whole(text)])
    return -token_logps(model(ids[:, :-1]), ids[:, 1:])[0]


def test_documents_that_share_a_row_are_read_as_if_each_were_alone():
    model = tiny()
    packed = pack(GAMES, length=90)
    assert len(packed) == 1 and int(packed.document.max()) == 2
    got, metrics = next_token_loss(model, packed)
    want = torch.cat([alone(model, text) for text in GAMES]).mean()
    assert got.dtype == torch.float64
    assert_close(got, want, rtol=0, atol=1e-12)
    assert metrics["perplexity"] == pytest.approx(math.exp(want.item()), rel=1e-12)


def test_their_gradient_too_is_that_of_each_alone():
    model = tiny()
    weights = list(model.parameters())
    together = torch.autograd.grad(next_token_loss(model, pack(GAMES, 90))[0], weights)
    each = torch.cat([alone(model, text) for text in GAMES]).mean()
    apart = torch.autograd.grad(each, weights)
    assert_close(together, apart, rtol=0, atol=1e-12)
    assert all(slope.abs().max() > 0 for slope in together)


def test_it_makes_no_difference_which_documents_share_a_row():
    model = tiny()
    texts = documents(count=40, seed=3)
    want = torch.cat([alone(model, text) for text in texts]).mean()
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        for length in (ROW, 127):
            got, _ = next_token_loss(model, pack(texts, length))
            assert_close(got, want, rtol=0, atol=1e-12)


def test_no_document_is_to_be_foretold_from_the_one_before_it():
    model = tiny()
    packed = pack(GAMES, length=90)
    want, _ = next_token_loss(model, packed)
    tokens = packed.tokens.clone()
    tokens[0, (packed.document[0] == 1).nonzero()[0]] = A  # another first token …
    changed, _ = next_token_loss(model, Packed(tokens, packed.document))
    first, second = (packed.document == n for n in (0, 1))
    only = [
        next_token_loss(model, Packed(x, packed.document.masked_fill(~first, -1)))[0]
        for x in (packed.tokens, tokens)
    ]
    assert torch.equal(*only)  # … is nothing to the first document
    assert not torch.equal(changed, want) and second.any()  # only to its own


def test_padding_carries_no_loss_whatever_stands_there():
    model = tiny()
    packed = pack(GAMES[:1], length=60)
    want, _ = next_token_loss(model, packed)
    padded = packed.document == -1
    assert padded.sum() > 20
    for token in (A, BEGIN, END, len(TOKENIZER) - 1):
        dirty = packed.tokens.masked_fill(padded, token)
        got, _ = next_token_loss(model, Packed(dirty, packed.document))
        assert_close(got, want, rtol=0, atol=1e-14)
    narrow, _ = next_token_loss(model, pack(GAMES[:1], len(whole(GAMES[0])) - 1))
    assert_close(narrow, want, rtol=0, atol=1e-12)


def test_the_end_of_a_document_is_learnt():
    model = tiny()
    packed = pack(["a"], length=2)
    logps = model(packed.tokens[:, :-1]).log_softmax(-1)
    want = -(logps[0, 0, A] + logps[0, 1, END]) / 2
    assert_close(next_token_loss(model, packed)[0], want, rtol=0, atol=1e-13)


# ---------------------------------------------------------------- the text


@pytest.mark.parametrize("updates", [1, 7, 60, 300])
def test_a_corpus_has_as_many_rows_as_its_updates_read(updates):
    for seed in range(2):
        text = corpus(seed=seed, updates=updates)
        assert len(text) == updates * pretrain.BATCH
    worked = corpus(seed=0, updates=updates, cups_worked=0.3)
    assert len(worked) == updates * pretrain.BATCH


def test_the_same_seed_gives_the_same_corpus_and_another_another():
    one, two, other = (corpus(seed=s, updates=2).tokens for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_worked_answers_are_in_the_corpus_only_where_they_are_asked_for():
    (think,) = TOKENIZER.encode(" <think>")
    assert not (corpus(seed=0, updates=20, cups_worked=0.0).tokens == think).any()
    assert (corpus(seed=0, updates=20, cups_worked=0.1).tokens == think).any()


# ---------------------------------------------------------------- training


def same(one, two):
    ours, theirs = one.state_dict(), two.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_seed_makes_the_same_model_bit_for_bit():
    before = torch.random.get_rng_state()
    made = [pretrain.pretrain(seed=seed, updates=2) for seed in (3, 3, 4)]
    (one, history), (two, again), (other, _) = made
    assert same(one, two) and history == again and len(history["loss"]) == 2
    assert not same(one, other)
    assert all(weight.dtype == torch.float64 for weight in one.parameters())
    assert one.config == pretrain.CONFIG
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pretraining_begins_by_knowing_nothing_and_lowers_the_loss():
    _, history = pretrain.pretrain(seed=0, updates=30)
    assert abs(history["loss"][0] - math.log(len(TOKENIZER))) < 0.2
    assert history["loss"][-1] < history["loss"][0] - 0.3


def test_annealing_goes_on_from_the_model_that_it_is_given_in_place():
    model, two = (pretrain.pretrain(seed=0, updates=1)[0] for _ in range(2))
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    history = pretrain.anneal(model, seed=0, updates=2)
    assert pretrain.anneal(two, seed=0, updates=2) == history and same(model, two)
    assert all((w != start[name]).any() for name, w in model.state_dict().items())
    with_more = pretrain.pretrain(seed=0, updates=1)[0]
    assert pretrain.anneal(with_more, seed=0, updates=2, cups_worked=0.5) != history


def test_what_cannot_be_trained_is_refused(refuses):
    with refuses("seed: got -1, wanted an int of at least 0"):
        pretrain.pretrain(seed=-1)
    with refuses("updates: got 0, wanted an int of at least 1"):
        pretrain.pretrain(seed=0, updates=0)
    with refuses("cups_worked: got 1.5, wanted a number in [0, 1]"):
        pretrain.anneal(tiny(), seed=0, cups_worked=1.5)
    with refuses("seed: got -1, wanted an int of at least 0"):
        pretrain.base_model(seed=-1)
    wanted = "wanted one of (0, 1, 2, 3, 4); `pretrain` makes others"
    with refuses(f"seed: got 5, {wanted}"):
        pretrain.base_model(seed=5)
