"""Plausible mistakes in the exercises of chapter 2; each check must refuse each of them."""

STEPS = """
def n_step(rewards, values, next_values, fell, cut, n, gamma):
    found = torch.zeros_like(rewards)
    for t in range(len(rewards)):
        total, weight = -values[t], 1.0
        for k in range(t, min(t + n, len(rewards))):
            total = total + weight * rewards[k]
            weight *= gamma
            {stop}
        found[t] = total
    return found
"""
FELL, CUT = "if fell[k]: break", "if cut[k] or k == t + n - 1:"
BOOTSTRAP = "total = total + weight * next_values[k]; break"
RIGHT = f"{FELL}\n            {CUT}\n                {BOOTSTRAP}"

LIBRARY = """
def n_step(rewards, values, next_values, fell, cut, n, gamma):
    return gae(rewards, values, next_values, fell, cut, gamma=gamma, lam={lam})[0]
"""

PENALTY = """
def penalised(logits, old_logits, actions, advantages, beta):
    logps, old = logits.log_softmax(-1), old_logits.detach().log_softmax(-1)
    kl = (old.exp() * (old - logps)).sum(-1)
    taken = actions.unsqueeze(-1)
    ratio = (logps.gather(-1, taken) - old.gather(-1, taken)).squeeze(-1).exp()
    return (beta * kl - ratio * advantages.detach()).mean()
"""
ADAPT = """
def adapt(beta, kl, target):
    if kl < target / 1.5:
        return beta / 2
    return beta * 2 if kl > target * 1.5 else beta
"""

TARGETS = """
def td_targets(rewards, next_values, final_values, terminated, truncated, gamma):
    {rest}
"""

EPOCHS = """
def epochs(model, optimiser, states, actions, credit, mask, count):
    {before}
    moved = []
    for _ in range(count):
        {inside}
        logps = token_logps(model(states), actions)
        loss, metrics = ppo_clip(logps, old_logps, credit, mask)
        loss = {sign}loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        {after}
        moved.append(metrics["approx_kl"])
    return moved
"""
OLD = "old_logps = token_logps(model(states), actions).detach()"

DIAGNOSIS = """
def diagnosis():
    return {said}
"""

EXPERIMENT = """
def experiment():
    return {runs}


def paired(one, other):
    gaps = torch.tensor(one).double() - torch.tensor(other).double()
    return {said}
"""
FEW = "{e: [learn(e, s, actions=1000) for s in range(5)] for e in (1, 3, 10, 30)}"
PAIRED = "gaps.mean().item(), (gaps.std() / len(one) ** 0.5).item()"

WRONG = {
    "ex2_2": [
        # the library's GAE, whatever n: of all steps, of one step, of about n
        LIBRARY.format(lam="1.0"),
        LIBRARY.format(lam="0.0"),
        LIBRARY.format(lam="1 - 1 / n"),
        LIBRARY.format(lam="0.0 if n == 1 else 1.0"),
        # bootstraps from a state after the fall
        STEPS.format(stop=RIGHT.replace(FELL, "if fell[k] and False: break")),
        # runs on across a cut
        STEPS.format(stop=RIGHT.replace("cut[k] or ", "")),
        # nothing is worth anything behind a cut
        STEPS.format(stop=RIGHT.replace(FELL, "if fell[k] or cut[k]: break")),
        # one step too many
        STEPS.format(stop=RIGHT.replace("t + n - 1", "t + n")),
        # the future is not discounted
        STEPS.format(stop=RIGHT.replace("weight * next_values", "next_values")),
        # the return instead of the advantage
        STEPS.format(stop=RIGHT).replace("-values[t]", "0.0 * values[t]"),
    ],
    "ex2_3": [
        # the library's clip in place of the penalty
        """
def penalised(logits, old_logits, actions, advantages, beta):
    logps, old = token_logps(logits, actions), token_logps(old_logits, actions)
    return ppo_clip(logps, old, advantages, actions >= 0)[0]
"""
        + ADAPT,
        # the other direction of the KL
        PENALTY.replace("old.exp() * (old - logps)", "logps.exp() * (logps - old)")
        + ADAPT,
        # an estimate from the actions taken instead of the sum over all
        PENALTY.replace(
            "kl = (old.exp() * (old - logps)).sum(-1)",
            "kl = token_logps(old_logits, actions) - token_logps(logits, actions)",
        )
        + ADAPT,
        # rewards the distance
        PENALTY.replace("beta * kl -", "-beta * kl -") + ADAPT,
        # a sum over the steps
        PENALTY.replace(").mean()", ").sum()") + ADAPT,
        # the old policy and the advantages receive slopes
        PENALTY.replace(".detach()", "") + ADAPT,
        # cheaper where the policy went too far
        PENALTY
        + ADAPT.replace("beta / 2", "beta * 2").replace("beta * 2 if", "beta / 2 if"),
        # adapts to every miss, however small
        PENALTY + ADAPT.replace("/ 1.5", "").replace("* 1.5", ""),
    ],
    "ex2_4": [
        # as found
        TARGETS.format(
            rest="done = terminated | truncated\n"
            "    return rewards + gamma * next_values * ~done"
        ),
        # one mistake of two: bootstraps from the next episode's first state
        TARGETS.format(rest="return rewards + gamma * next_values * ~terminated"),
        # the final value where the pole fell, too
        TARGETS.format(
            rest="done = terminated | truncated\n"
            "    return rewards + gamma * torch.where(done, final_values, next_values)"
        ),
        # what stands where no episode is over gets through
        TARGETS.format(
            rest="v = next_values * ~truncated + final_values * truncated\n"
            "    return rewards + gamma * v * ~terminated"
        ),
        # a cut beats a fall
        TARGETS.format(
            rest="v = next_values.masked_fill(terminated, 0)\n"
            "    return rewards + gamma * torch.where(truncated, final_values, v)"
        ),
        # the library's advantages
        TARGETS.format(
            rest="return gae(rewards, next_values, next_values, terminated, truncated,"
            " gamma=gamma, lam=0.0)[1]"
        ),
    ],
    "ex2_5": [
        # as it was reported: compared with itself
        EPOCHS.format(before="pass", inside=OLD, sign="", after="pass"),
        # compared with the policy before the last update
        EPOCHS.format(
            before=OLD, inside="pass", sign="", after="old_logps = logps.detach()"
        ),
        # descends where it should climb
        EPOCHS.format(before=OLD, inside="pass", sign="-", after="pass"),
    ],
    "ex2_6": [
        # nothing is wrong with any
        DIAGNOSIS.format(said='dict.fromkeys("ABCDE", "healthy")'),
        # in the order of the table
        DIAGNOSIS.format(said='dict(zip("ABCDE", KINDS))'),
        # the healthy run and the one that takes a cut for a fall look alike
        DIAGNOSIS.format(
            said='{"A": "self", "B": "healthy", "C": "clip", "D": "cut", "E": "sign"}'
        ),
        # the best return must be the healthy one's
        DIAGNOSIS.format(
            said='{"A": "healthy", "B": "cut", "C": "clip", "D": "self", "E": "sign"}'
        ),
        # a run is missing
        DIAGNOSIS.format(said='{"A": "self", "B": "cut", "C": "clip", "E": "sign"}'),
    ],
    "ex2_7": [
        # the error of one run instead of the error of the mean
        EXPERIMENT.format(runs=FEW, said="gaps.mean().item(), gaps.std().item()"),
        # divides by n instead of n - 1
        EXPERIMENT.format(
            runs=FEW, said=PAIRED.replace("gaps.std()", "gaps.std(correction=0)")
        ),
        # one seed each
        EXPERIMENT.format(runs=FEW.replace("range(5)", "range(1)"), said=PAIRED),
        # five times the same seed
        EXPERIMENT.format(runs=FEW.replace("(e, s,", "(e, 0,"), said=PAIRED),
        # the same number of epochs everywhere
        EXPERIMENT.format(runs=FEW.replace("(e, s,", "(3, s,"), said=PAIRED),
        # totals instead of means
        EXPERIMENT.format(
            runs=FEW.replace("learn(e, s, actions=1000)", "1000.0 + s"), said=PAIRED
        ),
    ],
}
