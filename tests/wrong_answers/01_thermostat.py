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
        # the library's exact values, however few the sweeps
        """
def policy_evaluation(world, policy, sweeps):
    return mdp.policy_values(world, policy)
""",
    ],
    "ex1_3": [
        # forgets that the heater's pauses cool the room
        """
def forecast(lag):
    line = torch.arange(21 * 2**lag) % 2**lag
    on = sum((line >> k) & 1 for k in range(lag)) if lag else 0
    return temperatures(lag=lag) + on
""",
        # the number of the line instead of its count of ones
        """
def forecast(lag):
    line = torch.arange(21 * 2**lag) % 2**lag
    return temperatures(lag=lag) + 2 * line - lag
""",
        # the thermometer after all
        """
def forecast(lag):
    return temperatures(lag=lag)
""",
        # the best policy out of the library, instead of a forecast
        """
def forecast(lag):
    return mdp.greedy(mdp.policy_iteration(thermostat(lag=lag))[1])
""",
        # a temperature made from the library's best policy: cold where it heats
        """
def forecast(lag):
    heats = mdp.greedy(mdp.policy_iteration(thermostat(lag=lag))[1])[:, 1]
    return 73 - 2 * heats
""",
    ],
    "ex1_5": [
        # the library's room with a lag of one has 42 states too
        """
def worn_room(wear):
    return thermostat(lag=1)
""",
        # the same, with the price of switching: but there the last command moves the room
        """
def worn_room(wear):
    room = thermostat(lag=1)
    last = torch.arange(42) % 2
    changed = (torch.arange(2) != last.unsqueeze(1)).double()
    reward = room.reward - wear * changed
    return mdp.FiniteMDP(room.transition, reward, room.start, room.gamma)
""",
        # the last command stays what it was
        """
def worn_room(wear):
    plain = thermostat()
    transition = torch.zeros(42, 2, 42).double()
    transition[0::2, :, 0::2] = plain.transition
    transition[1::2, :, 1::2] = plain.transition
    changed = (torch.arange(2) != (torch.arange(42) % 2).unsqueeze(1)).double()
    reward = plain.reward.repeat_interleave(2, 0) - wear * changed
    start = torch.zeros(42).double()
    start[10] = 1
    return mdp.FiniteMDP(transition, reward, start, 0.95)
""",
        # pays for being on instead of for switching
        """
def worn_room(wear):
    plain = thermostat()
    transition = torch.zeros(42, 2, 42).double()
    for last in (0, 1):
        for action in (0, 1):
            transition[last::2, action, action::2] = plain.transition[:, action]
    reward = plain.reward.repeat_interleave(2, 0)
    reward[:, 1] -= wear
    start = torch.zeros(42).double()
    start[10] = 1
    return mdp.FiniteMDP(transition, reward, start, 0.95)
""",
        # starts with the heater on
        """
def worn_room(wear):
    plain = thermostat()
    transition = torch.zeros(42, 2, 42).double()
    for last in (0, 1):
        for action in (0, 1):
            transition[last::2, action, action::2] = plain.transition[:, action]
    changed = (torch.arange(2) != (torch.arange(42) % 2).unsqueeze(1)).double()
    reward = plain.reward.repeat_interleave(2, 0) - wear * changed
    start = torch.zeros(42).double()
    start[11] = 1
    return mdp.FiniteMDP(transition, reward, start, 0.95)
""",
    ],
    "ex1_6": [
        # as found
        """
def td_values(evenings, gamma, alpha):
    return values_as_found(evenings, gamma, alpha)
""",
        # the library's exact values
        """
def td_values(evenings, gamma, alpha):
    return mdp.policy_values(thermostat(gamma=gamma), rule(temperatures())).tolist()
""",
        # the cut taken for an end: nothing is worth anything after it
        """
def td_values(evenings, gamma, alpha):
    values = [0.0] * 21
    for states, rewards in evenings:
        for t, r in enumerate(rewards):
            future = values[states[t + 1]] if t + 1 < len(rewards) else 0.0
            values[states[t]] += alpha * (r + gamma * future - values[states[t]])
    return values
""",
        # leaves the last step of each evening out
        """
def td_values(evenings, gamma, alpha):
    values = [0.0] * 21
    for states, rewards in evenings:
        for s, r, after in zip(states[:-2], rewards, states[1:]):
            values[s] += alpha * (r + gamma * values[after] - values[s])
    return values
""",
        # keeps the last states in the row: rewards slip by one step an evening
        """
def td_values(evenings, gamma, alpha):
    values = [0.0] * 21
    states = [s for visited, _ in evenings for s in visited]
    rewards = [r for _, earned in evenings for r in earned]
    for s, r, after in zip(states, rewards, states[1:]):
        values[s] += alpha * (r + gamma * values[after] - values[s])
    return values
""",
    ],
    "ex1_7": [
        # the oldest commands instead of the last
        """
def seen(state, k):
    temperature, line = divmod(state, 8)
    return temperature * 2**k + (line >> (3 - k))


def experiment():
    return {k: [learn(k, seed, evenings=5) for seed in range(5)] for k in range(4)}
""",
        # the full state, whatever k
        """
def seen(state, k):
    return state


def experiment():
    return {k: [learn(3, seed, evenings=5) for seed in range(5)] for k in range(4)}
""",
        # one seed for each k
        """
def seen(state, k):
    return (state // 8) * 2**k + state % 2**k


def experiment():
    return {k: [learn(k, 0, evenings=5)] for k in range(4)}
""",
        # five times the same seed
        """
def seen(state, k):
    return (state // 8) * 2**k + state % 2**k


def experiment():
    return {k: [learn(k, 0, evenings=100)] * 5 for k in range(4)}
""",
        # sums instead of values
        """
def seen(state, k):
    return (state // 8) * 2**k + state % 2**k


def experiment():
    return {k: [100.0 + seed for seed in range(5)] for k in range(4)}
""",
    ],
}
