"""What chapter 7 derives and builds in view, held over other inputs, and what it claims."""

import ast

import pytest
import torch
from torch.testing import assert_close

from labs import agents
from labs import instruction_tuning as it
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.pretrain import Packed, next_token_loss
from lib.rollout import Batch
from lib.sft import instruct, sft_loss, written
from lib.train import fit
from lib.worlds import exact
from lib.worlds.language import TOKENIZER
from tools import notebooks

PAGE = notebooks.read(notebooks.ROOT / "notebooks" / "07_instruction_tuning.ipynb")
TINY = Config(vocabulary=len(TOKENIZER), layers=1, width=16, heads=2, hidden=16)
DEFINES = ast.Import | ast.ImportFrom | ast.FunctionDef


def built(*names: str) -> dict:
    """What these cells of the page import and define; what they run is left out."""
    space = {"torch": torch, "TOKENIZER": TOKENIZER, "it": it}
    for name in names:
        source = next(each.source for each in PAGE.cells if each.id == name)
        kept = [node for node in ast.parse(source).body if isinstance(node, DEFINES)]
        exec(compile(ast.Module(kept, []), name, "exec"), space)
    return space


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def slope(loss, model):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, model.parameters())]
    )


def several(seed=0):
    """Short and long demonstrations."""
    worked = [(task, it.worked(task)) for task in it.games(3, seed=seed)]
    return it.demonstrations(4, seed=seed) + worked


# ----------------------------------------------------------------------- the derivation


@pytest.mark.parametrize("seed", range(5))
def test_imitation_is_a_policy_gradient_with_reward_1_on_somebody_else_s_actions(seed):
    shown, model = written(*zip(*several(seed))), tiny(seed)
    one = torch.ones_like(shown.rewards)
    paid = agents.policy_loss(model, Batch(shown, one, one, one))[0]
    imitated = sft_loss(model, shown)[0] * shown.mask.sum() / len(shown)
    assert_close(slope(paid, model), slope(imitated, model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_kl_plus_entropy_and_the_people_themselves_are_its_minimum(
    seed, seeded
):
    draw = seeded(seed)
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    people = torch.randn(len(every), dtype=torch.float64, generator=draw).log_softmax(0)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)

    def loss(model, _):
        return -exact.expected(exact.completion_logps(model, every), people), {}

    logps = exact.completion_logps(policy, every)
    kl = (people.exp() * (people - logps)).sum()
    entropy = -(people.exp() * people).sum()
    assert_close(loss(policy, None)[0], kl + entropy, rtol=0, atol=1e-12)
    fit(policy, [None] * 600, loss, lr=0.1)
    assert loss(policy, None)[0] - entropy < 1e-3
    fitted = exact.completion_logps(policy, every)
    assert_close(fitted.exp(), people.exp(), rtol=0, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_to_imitate_oneself_teaches_nothing_and_the_chosen_teach_the_policy_gradient(
    seed, seeded
):
    draw = seeded(seed)
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)
    chosen = torch.rand(len(every), dtype=torch.float64, generator=draw)
    logps = exact.completion_logps(policy, every)
    own = exact.gradient((logps.exp().detach() * logps).sum(), policy)
    assert own.abs().max() < 1e-12
    J = exact.expected(chosen, logps)
    law = (chosen * logps.exp() / J).detach()
    kept = exact.gradient((law * logps).sum(), policy)
    assert_close(kept, exact.gradient(J, policy) / J.detach(), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------ built in view


def test_the_rows_of_the_page_are_lib_s():
    shown = several()
    tokens, answer = built("padded")["padded"](shown)
    rollout = written(*zip(*shown))
    assert torch.equal(tokens[:, 1:][answer[:, 1:]], rollout.actions[rollout.mask])
    assert torch.equal(answer[:, 1:].sum(1), rollout.mask.sum(1))
    for (task, text), row in zip(shown, tokens):
        ids = [TOKENIZER.begin, *TOKENIZER.encode(f"{task.prompt} {text}")]
        assert row[: len(ids) + 1].tolist() == [*ids, TOKENIZER.end]
        assert (row[len(ids) + 1 :] == TOKENIZER.pad).all()


@pytest.mark.parametrize(("epochs", "batch", "seed"), [(1, 32, 0), (3, 4, 5)])
def test_the_loop_of_the_page_gives_the_weights_of_lib_s(epochs, batch, seed):
    how = {"epochs": epochs, "batch": batch, "lr": 0.01, "seed": seed}
    model, theirs = tiny(), tiny()
    ours, losses = built("padded", "imitate")["imitate"](model, several(), **how)
    history = instruct(theirs, several(), **how)
    assert_close(torch.tensor(losses), torch.tensor(history["loss"]))
    for a, b, before in zip(
        ours.parameters(), theirs.parameters(), tiny().parameters()
    ):
        assert_close(a, b, rtol=0, atol=1e-9)
        assert not torch.equal(a, before)
    assert all(map(torch.equal, model.parameters(), tiny().parameters()))


def test_demonstrations_are_packed_whole_each_once():
    shown = several()
    tokens, learned, document = built("padded", "pack")["pack"](shown, length=64)
    assert tokens.shape == learned.shape == document.shape == (len(tokens), 65)
    found = []
    for row, is_it, of in zip(tokens, learned, document):
        for number in range(int(of.max()) + 1):
            at = (of == number).nonzero()[:, 0]
            assert at.tolist() == list(range(at[0], at[0] + len(at)))  # side by side
            found.append((row[at].tolist(), is_it[at].tolist()))
        assert (row[of < 0] == TOKENIZER.pad).all() and not is_it[of < 0].any()
    tokens_of = built("padded")["tokens_of"]
    assert sorted(found) == sorted(tokens_of(*each) for each in shown)


def test_each_goes_into_the_first_row_with_room_the_longest_first():
    shown = several()
    built_pack = built("padded", "pack")
    sizes = sorted(
        (len(built_pack["tokens_of"](*each)[0]) for each in shown), reverse=True
    )
    rows: list[list[int]] = []
    for size in sizes:
        row = next((row for row in rows if sum(row) + size <= 65), None)
        if row is None:
            rows.append(row := [])
        row.append(size)
    _, _, document = built_pack["pack"](shown, length=64)
    got = [[int((of == n).sum()) for n in range(int(of.max()) + 1)] for of in document]
    assert got == rows


def test_a_demonstration_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="rows of 11"):
        built("padded", "pack")["pack"](several(), length=10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [56, 96])
def test_packing_changes_neither_the_loss_nor_its_gradient(seed, length):
    space, model, shown = built("padded", "loss-of", "pack"), tiny(seed), several(seed)
    alone = space["loss_of"](model, *space["padded"](shown))
    packed = space["pack"](shown, length=length)
    together = space["packed_loss"](model, *packed)
    assert_close(alone, sft_loss(model, written(*zip(*shown)))[0], rtol=0, atol=1e-12)
    assert_close(together, alone, rtol=0, atol=1e-12)
    assert_close(slope(together, model), slope(alone, model), rtol=0, atol=1e-12)
    seen = space["packed_loss"](model, *packed, apart=False)
    assert (seen - alone).abs() > 1e-6  # who sees strangers reads otherwise


def test_with_every_token_learnt_packing_is_lib_s_pretraining_loss():
    space, model = built("padded", "pack"), tiny()
    tokens, _, document = space["pack"](several())
    ours = space["packed_loss"](model, tokens, document >= 0, document)
    theirs = next_token_loss(model, Packed(tokens, document))[0]
    assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_with_the_end_hidden_the_loss_falls_and_the_model_does_not_learn_to_stop(seed):
    space, shown, ends = built("padded", "imitate", "no-end"), several(seed), {}
    rows = written(*zip(*shown))
    last = rows.mask & (rows.actions == TOKENIZER.end)
    for learn in ("as_written", "without_end"):
        model, losses = space["imitate"](
            tiny(seed), shown, epochs=60, lr=0.02, learn=space[learn]
        )
        with torch.no_grad():
            logps = token_logps(model(rows.states), rows.actions)
        assert losses[-1] < losses[0] - 1
        ends[learn] = logps[last].exp().mean()
    assert ends["as_written"] > 0.2 > 0.02 > ends["without_end"]
