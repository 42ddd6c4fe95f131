"""Plausible mistakes in the exercises of chapter 1; each check must refuse each of them."""

WRONG = {
    "ex1_2": [
        # the best action instead of the policy's mean
        """
def policy_evaluation(world, policy, sweeps):
    values = torch.zeros_like(world.start)
    for _ in range(sweeps):
        backup = world.reward + world.gamma * world.transition @ values
        values = backup.max(-1).values
    return values
""",
        # no discount
        """
def policy_evaluation(world, policy, sweeps):
    values = torch.zeros_like(world.start)
    for _ in range(sweeps):
        values = (policy * (world.reward + world.transition @ values)).sum(-1)
    return values
""",
        # one sweep too many
        """
def policy_evaluation(world, policy, sweeps):
    values = (policy * world.reward).sum(-1)
    for _ in range(sweeps):
        backup = world.reward + world.gamma * world.transition @ values
        values = (policy * backup).sum(-1)
    return values
""",
        # the value of an action, not of a state
        """
def policy_evaluation(world, policy, sweeps):
    values = torch.zeros_like(world.start)
    for _ in range(sweeps):
        backup = world.reward + world.gamma * world.transition @ values
        values = (policy * backup).sum(-1)
    return world.reward + world.gamma * world.transition @ values
""",
        # discounts the reward as well
        """
def policy_evaluation(world, policy, sweeps):
    values = torch.zeros_like(world.start)
    for _ in range(sweeps):
        backup = world.gamma * (world.reward + world.transition @ values)
        values = (policy * backup).sum(-1)
    return values
""",
    ],
    "ex1_3": [
        # forgets that the heater's pauses cool the room
        """
def foreseeing(lag):
    line = torch.arange(21 * 2**lag) % 2**lag
    on = sum((line >> k) & 1 for k in range(lag)) if lag else 0
    return rule(temperatures(lag=lag) + on, below=72)
""",
        # the number of the line instead of its count of ones
        """
def foreseeing(lag):
    line = torch.arange(21 * 2**lag) % 2**lag
    return rule(temperatures(lag=lag) + 2 * line - lag, below=72)
""",
        # the thermometer after all
        """
def foreseeing(lag):
    return rule(temperatures(lag=lag), below=72)
""",
        # the number on the wall: short of the best from a lag of 1 on
        """
def foreseeing(lag):
    line = torch.arange(21 * 2**lag) % 2**lag
    on = sum((line >> k) & 1 for k in range(lag)) if lag else 0
    return rule(temperatures(lag=lag) + 2 * on - lag, below=70)
""",
    ],
    "ex1_5": [
        # the second visit overwrites the first
        """
def table_gradient(logits, states, actions, credit):
    chosen = torch.nn.functional.one_hot(actions, logits.shape[-1])
    push = credit.unsqueeze(-1) * (chosen - logits.softmax(-1)[states])
    total = torch.zeros_like(logits)
    total[states] += push
    return total / len(states)
""",
        # the sum over episodes
        """
def table_gradient(logits, states, actions, credit):
    chosen = torch.nn.functional.one_hot(actions, logits.shape[-1])
    push = credit.unsqueeze(-1) * (chosen - logits.softmax(-1)[states])
    return torch.zeros_like(logits).index_put((states,), push, accumulate=True)
""",
        # only what was done goes up, nothing goes down
        """
def table_gradient(logits, states, actions, credit):
    chosen = torch.nn.functional.one_hot(actions, logits.shape[-1])
    push = credit.unsqueeze(-1) * chosen
    total = torch.zeros_like(logits).index_put((states,), push, accumulate=True)
    return total / len(states)
""",
        # the gradient of the probability, not of its logarithm
        """
def table_gradient(logits, states, actions, credit):
    chosen = torch.nn.functional.one_hot(actions, logits.shape[-1])
    pi = logits.softmax(-1)[states]
    taken = (chosen * pi).sum(-1, keepdim=True)
    push = credit.unsqueeze(-1) * taken * (chosen - pi)
    total = torch.zeros_like(logits).index_put((states,), push, accumulate=True)
    return total / len(states)
""",
    ],
    "ex1_6": [
        # as found
        """
def credit(rewards):
    total = rewards.cumsum(-1)
    return total - total.mean(0)
""",
        # turned round once: the first step gets the last reward
        """
def credit(rewards):
    total = rewards.flip(-1).cumsum(-1)
    return total - total.mean(0)
""",
        # without the step's own reward
        """
def credit(rewards):
    total = rewards.flip(-1).cumsum(-1).flip(-1) - rewards
    return total - total.mean(0)
""",
        # the mean over time instead of over episodes
        """
def credit(rewards):
    total = rewards.flip(-1).cumsum(-1).flip(-1)
    return total - total.mean(-1, keepdim=True)
""",
    ],
}
