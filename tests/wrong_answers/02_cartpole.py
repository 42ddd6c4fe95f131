"""Plausible mistakes in the exercises of chapter 2, by the exercise they belong to."""

GAE = """
def advantages(rewards, values, next_values, terminated, truncated, gamma, lam):
    found, later = torch.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        {future}
        delta = rewards[t] + gamma * future - values[t]
        {carry}
        found[t] = later
    return found
"""
FUTURE = "future = 0.0 if terminated[t] else next_values[t]"
CARRY = "later = delta + gamma * lam * (0 if terminated[t] or truncated[t] else later)"

SURROGATE = """
def surrogate(logps, old_logps, advantages, clip):
    advantages = advantages.detach()
    ratio = (logps - old_logps.detach()).exp()
    {rest}
"""

FOLLOWS = """
def what_follows(values, last_values, ends, terminated):
    last = last_values[:, None]
    after = torch.cat((values[:, 1:], last), 1)
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

WRONG = {
    "ex2_2": [
        # a truncated step is treated as terminated
        GAE.format(
            future="future = 0.0 if terminated[t] or truncated[t] else next_values[t]",
            carry=CARRY,
        ),
        # advantages flow back across a truncation
        GAE.format(
            future=FUTURE,
            carry="later = delta + gamma * lam * (0 if terminated[t] else later)",
        ),
        # bootstraps from a state after the fall
        GAE.format(future="future = next_values[t]", carry=CARRY),
        # forgets gamma in the decay
        GAE.format(future=FUTURE, carry=CARRY.replace("gamma * lam", "lam")),
        # truncation wins over termination
        GAE.format(
            future="future = next_values[t] if truncated[t] or not terminated[t] else 0.0",
            carry=CARRY,
        ),
        # the returns instead of the advantages
        GAE.format(future=FUTURE, carry=CARRY).replace(
            "return found", "return found + values"
        ),
    ],
    "ex2_3": [
        # clipped only, without the minimum
        SURROGATE.format(rest="return ratio.clamp(1 - clip, 1 + clip) * advantages"),
        # the maximum
        SURROGATE.format(
            rest="return torch.maximum(ratio * advantages,"
            " ratio.clamp(1 - clip, 1 + clip) * advantages)"
        ),
        # the minimum of the ratios, not of the products
        SURROGATE.format(
            rest="return torch.minimum(ratio, ratio.clamp(1 - clip, 1 + clip))"
            " * advantages"
        ),
        # a difference of log-probabilities instead of a ratio
        SURROGATE.replace(".exp()", "").format(
            rest="return torch.minimum(ratio * advantages,"
            " ratio.clamp(1 - clip, 1 + clip) * advantages)"
        ),
        # advantages keep their gradient
        SURROGATE.replace("advantages = advantages.detach()", "pass").format(
            rest="return torch.minimum(ratio * advantages,"
            " ratio.clamp(1 - clip, 1 + clip) * advantages)"
        ),
        # the loss instead of the objective
        SURROGATE.format(
            rest="return -torch.minimum(ratio * advantages,"
            " ratio.clamp(1 - clip, 1 + clip) * advantages)"
        ),
    ],
    "ex2_4": [
        # as it was reported
        FOLLOWS.format(rest="return after, ends, torch.zeros_like(ends)"),
        # one bug of two: rows that end early look at their padding
        FOLLOWS.format(
            rest="over = ends & terminated[:, None]; return after, over, ends & ~over"
        ),
        # the other bug of two
        FOLLOWS.format(
            rest="return torch.where(ends, last, after), ends, torch.zeros_like(ends)"
        ),
        # every step of a row that ended counts as terminated
        FOLLOWS.format(
            rest="over = terminated[:, None].expand_as(ends);"
            " return torch.where(ends, last, after), over, ends & ~over"
        ),
        # a row that ended counts as truncated too
        FOLLOWS.format(
            rest="over = ends & terminated[:, None];"
            " return torch.where(ends, last, after), over, ends"
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
}
