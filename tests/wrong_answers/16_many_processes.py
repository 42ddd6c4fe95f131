"""Plausible mistakes in the exercises of chapter 16, by the exercise they belong to."""

LOSSES = """
def rank_losses(parts, over):
    counts = [{count} for x, m in parts]
    mean = ops.sequence_mean if over == "rows" else ops.token_mean
    return [{weighted} for (x, m), n in zip(parts, counts)]
"""
COUNT = 'len(m) if over == "rows" else int(m.sum())'
WEIGHTED = "mean(x, m) * (len(parts) * n / sum(counts)) if n else x.sum() * 0"


def losses(count=COUNT, weighted=WEIGHTED):
    """An answer to 16.2."""
    return LOSSES.format(count=count, weighted=weighted)


WHITE = """
def whitened(parts, all_reduce):
    total, count = all_reduce([torch.stack([x[m].sum(), m.sum().to(x)]) for x, m in parts])
    mean = {mean}
    centred = [(x - mean).masked_fill(~m, 0) for x, m in parts]
    squares = {squares}
    return [c * {scale} for c in centred]
"""


def white(
    mean="total / count",
    squares="all_reduce([c.square().sum() for c in centred])",
    scale="torch.rsqrt(squares / (count - 1) + 1e-8)",
):
    """An answer to 16.3."""
    return WHITE.format(mean=mean, squares=squares, scale=scale)


SAVE = """
def lost(tau, write, gpus, gpu_hours):
    between = {between}
    return {lost}


def best(write, gpus, gpu_hours):
    return {best}
"""
BETWEEN = "gpu_hours * 3600 / gpus"
LOST = "write / tau + tau / (2 * between)"
BEST = "math.sqrt(2 * write * gpu_hours * 3600 / gpus)"


def save(between=BETWEEN, lost=LOST, best=BEST):
    """An answer to 16.4."""
    return SAVE.format(between=between, lost=lost, best=best)


STAGE = """
def smallest_stage(billions, gpus, memory, spare):
    for stage in {stages}:
        each = held(stage, gpus)
        if billions * {bytes} + spare {fits} memory:
            return stage
    return None
"""
BYTES = '(sum(each.values()) + each["weights"])'


def stage(stages="range(4)", bytes=BYTES, fits="<="):
    """An answer to 16.6."""
    return STAGE.format(stages=stages, bytes=bytes, fits=fits)


WRONG = {
    "ex16_2": [
        # the plain mean; the mean of nothing
        losses(weighted="mean(x, m) if n else x.sum() * 0"),
        losses(weighted="mean(x, m) * (len(parts) * n / sum(counts))"),
        losses(weighted="(x * m).sum() / n * len(parts) * n / sum(counts)"),
        # rows for tokens, tokens for rows
        losses(count="len(m)"),
        losses(count="int(m.sum())"),
        # the number of ranks is forgotten: right for a sum over ranks
        losses(weighted="mean(x, m) * (n / sum(counts)) if n else x.sum() * 0"),
        # only ranks that have something are counted
        losses(weighted=WEIGHTED.replace("len(parts)", "sum(c > 0 for c in counts)")),
        # a rank without rows is left out; values without their gradient
        losses() + "    # ...\n" + "rank_losses_ = rank_losses\n"
        "def rank_losses(parts, over):\n"
        "    return rank_losses_([p for p in parts if len(p[0])], over)\n",
        losses(weighted="(" + WEIGHTED + ").detach().requires_grad_()"),
    ],
    "ex16_3": [
        # each rank by itself
        "def whitened(parts, all_reduce):\n"
        "    all_reduce([m.sum() for _, m in parts])\n"
        "    return [ops.whiten(x, m) if m.sum() > 1 else x * 0 for x, m in parts]",
        # the mean of the ranks' means
        white(mean="sum(x[m].mean() for x, m in parts) / len(parts)"),
        # N in place of N - 1
        white(scale="torch.rsqrt(squares / count + 1e-8)"),
        # the square of the mean off the mean of squares, which loses all digits
        white(
            squares="all_reduce([x[m].square().sum() for x, m in parts])"
            " - count * mean.square()"
        ),
        # the deviation of each rank, averaged
        white(squares="sum(c.square().sum() for c in centred) / len(parts)"),
        # everything is sent
        "def whitened(parts, all_reduce):\n"
        "    sizes = [len(x) for x, _ in parts]\n"
        "    at = [sum(sizes[:k]) for k in range(len(sizes))]\n"
        "    pad = [torch.zeros(sum(sizes), 5, dtype=torch.float64) for _ in parts]\n"
        "    hot = [p.clone().bool() for p in pad]\n"
        "    for k, (x, m) in enumerate(parts):\n"
        "        pad[k][at[k]:at[k] + len(x)], hot[k][at[k]:at[k] + len(x)] = x, m\n"
        "    every = ops.whiten(all_reduce(pad), sum(hot).bool())\n"
        "    return list(every.split(sizes))",
    ],
    "ex16_4": [
        # a whole interval is lost at each failure
        save(lost="write / tau + tau / between"),
        # the failures of one GPU; hours taken for seconds
        save(between="gpu_hours * 3600", best=BEST.replace(" / gpus", "")),
        save(between="gpu_hours / gpus", best=BEST.replace(" * 3600", "")),
        # more GPUs fail less; the 2 is forgotten; no root
        save(best=BEST.replace("/ gpus", "* gpus")),
        save(best=BEST.replace("2 * ", "")),
        save(best="2 * write * gpu_hours * 3600 / gpus"),
    ],
    "ex16_5": [
        # as it was reported; only half mended
        "def mean_over_ranks(rows):\n"
        "    if not rows:\n"
        "        return 0.0\n"
        "    total = yield sum(rows)\n"
        "    count = yield len(rows)\n"
        "    return total / count",
        "def mean_over_ranks(rows):\n"
        "    total = yield sum(rows)\n"
        "    if not rows:\n"
        "        return 0.0\n"
        "    count = yield len(rows)\n"
        "    return total / count",
        # a rank with nothing answers once
        "def mean_over_ranks(rows):\n"
        "    total = yield sum(rows)\n"
        "    if sum(rows) == 0:\n"
        "        return 0.0\n"
        "    return total / (yield len(rows))",
        # the mean of means
        "def mean_over_ranks(rows):\n"
        "    total = yield (sum(rows) / len(rows) if rows else 0.0)\n"
        "    count = yield 1\n"
        "    return total / count",
        # only those with rows are counted, as one each
        "def mean_over_ranks(rows):\n"
        "    total = yield sum(rows)\n"
        "    count = yield bool(rows)\n"
        "    return total / count",
    ],
    "ex16_6": [
        # no reference; a reference with its own optimiser
        stage(bytes="sum(each.values())"),
        stage(bytes="2 * sum(each.values())"),
        # the reference is divided at every stage, or at none
        stage(bytes="(sum(each.values()) + 2 / gpus)"),
        stage(bytes="(sum(each.values()) + 2)"),
        # the largest stage, or never the last; exactly full counts as too much
        stage(stages="(3, 2, 1, 0)"),
        stage(stages="range(3)"),
        stage(fits="<"),
    ],
}
