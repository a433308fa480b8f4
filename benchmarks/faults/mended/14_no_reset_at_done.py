"""An actor with a GRU cell learns from rollouts of three environments; the rollouts come with a
flag that says at which step an episode begins anew. Mended: before each step the state of the
environments whose episode begins there is emptied, so that no episode runs on into the next.
"""

import torch
from torch import nn

ENVIRONMENTS = 3
HORIZON = 6
OBSERVATION = 4


def make_episode(length):
    speed = 0.2 + 0.3 * torch.rand(1)
    angle = speed * torch.arange(length) + 6.28 * torch.rand(1)
    signals = torch.stack([angle.sin(), angle.cos(), 0.5 * (2 * angle).sin(), angle / 10], dim=1)
    return signals + 0.05 * torch.randn(length, OBSERVATION)


def rollouts(episodes):
    """Yield observations (steps, environments, values) and the flags of fresh episodes."""
    current = list(range(ENVIRONMENTS))
    position = [0] * ENVIRONMENTS
    waiting = ENVIRONMENTS
    while True:
        observations = torch.zeros(HORIZON, ENVIRONMENTS, OBSERVATION)
        fresh = torch.zeros(HORIZON, ENVIRONMENTS, dtype=torch.bool)
        for step in range(HORIZON):
            for env in range(ENVIRONMENTS):
                if position[env] >= len(episodes[current[env]]):
                    if waiting >= len(episodes):
                        return
                    current[env] = waiting
                    position[env] = 0
                    waiting += 1
                fresh[step, env] = position[env] == 0
                observations[step, env] = episodes[current[env]][position[env]]
                position[env] += 1
        yield {"observations": observations, "fresh": fresh}


class RecurrentPolicy(nn.Module):
    def __init__(self, hidden_size=16):
        super().__init__()
        self.body = nn.Linear(OBSERVATION, hidden_size)
        self.cell = nn.GRUCell(hidden_size, hidden_size)
        self.actor = nn.Linear(hidden_size, 2)

    def forward(self, observation, hidden):
        hidden = self.cell(self.body(observation).relu(), hidden)
        return self.actor(hidden), hidden


def main():
    torch.manual_seed(14)
    lengths = torch.randint(7, 13, (60,)).tolist()
    episodes = [make_episode(length) for length in lengths]
    policy = RecurrentPolicy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.003)
    hidden = torch.zeros(ENVIRONMENTS, 16)
    for rollout in rollouts(episodes):
        hidden = hidden.detach()
        losses = []
        for observation, fresh in zip(rollout["observations"], rollout["fresh"]):
            hidden = hidden.masked_fill(fresh.view(-1, 1), 0.0)
            logits, hidden = policy(observation, hidden)
            actions = torch.distributions.Categorical(logits=logits)
            chosen = actions.sample()
            reward = torch.where(chosen == (observation[:, 0] > 0).long(), 1.0, -1.0)
            losses.append(-(actions.log_prob(chosen) * reward).mean())
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
