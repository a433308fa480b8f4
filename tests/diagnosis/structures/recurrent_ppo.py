"""A recurrent policy trained by PPO: rollouts with stored first states, episodes that begin inside a rollout."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from echo_torch import diagnosis

ENVIRONMENTS, HORIZON, FEATURES, ACTIONS, SIZE = 4, 8, 3, 2, 8
OF_ENVIRONMENTS = ("hidden", "cell", "before")  # of a rollout; all else has the steps before


class Environments:
    """Episodes of random length side by side; the right action is the sign of the first feature."""

    def __init__(self):
        self.draw = torch.Generator().manual_seed(5)
        self.place = torch.zeros(ENVIRONMENTS, dtype=torch.long)
        self.length = torch.randint(3, 11, (ENVIRONMENTS,), generator=self.draw)
        self.episode = torch.arange(ENVIRONMENTS)
        self.observation = torch.randn(ENVIRONMENTS, FEATURES, generator=self.draw)

    def step(self, action):
        """Reward of the action; then all go on, and where an episode ends the next one begins."""
        reward = torch.where(action == (self.observation[:, 0] > 0).long(), 1.0, -1.0)
        self.place += 1
        done = self.place >= self.length
        self.place[done] = 0
        self.episode[done] += ENVIRONMENTS
        self.length[done] = torch.randint(3, 11, (int(done.sum()),), generator=self.draw)
        self.observation = torch.randn(ENVIRONMENTS, FEATURES, generator=self.draw)
        return reward, done


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, SIZE), nn.Tanh())
        self.lstm = nn.LSTM(SIZE, SIZE)
        self.actor = nn.Linear(SIZE, ACTIONS)
        self.critic = nn.Linear(SIZE, 1)

    def initial_state(self, lanes):
        return torch.zeros(1, lanes, SIZE), torch.zeros(1, lanes, SIZE)

    def forward(self, observations, state, starts):
        """Time-major; where `starts` (steps, lanes) is true the state is forgotten before the step."""
        outputs = []
        for features, start in zip(self.body(observations), starts, strict=True):
            state = tuple(field * (~start).view(1, -1, 1) for field in state)
            output, state = self.lstm(features.unsqueeze(0), state)
            outputs.append(output)
        features = torch.cat(outputs)
        return self.actor(features), self.critic(features).squeeze(-1), state


class Rollouts(IterableDataset):
    """Plays with the policy as it is, and hands out each rollout twice in parts of two environments."""

    def __init__(self, policy, number=6, passes=2):
        self.policy, self.number, self.passes = policy, number, passes
        self.rewards = []

    def __iter__(self):
        environments = Environments()
        state = self.policy.initial_state(ENVIRONMENTS)
        starts = torch.ones(ENVIRONMENTS, dtype=torch.bool)
        last = torch.full((ENVIRONMENTS,), -1)  # the last step that the state of each environment has read
        for _ in range(self.number):
            rollout = {"hidden": state[0][0], "cell": state[1][0], "before": torch.where(starts, -1, last)}
            rows, state, starts, last = self.play(environments, state, starts)
            rollout.update({name: torch.stack([row[name] for row in rows]) for name in rows[0]})
            rollout["returns"] = rollout["reward"].flip(0).cumsum(0).flip(0) * 0.1
            self.rewards.append(rollout["reward"].mean().item())
            for _ in range(self.passes):
                for chosen in torch.randperm(ENVIRONMENTS).split(2):
                    yield {
                        name: field[chosen] if name in OF_ENVIRONMENTS else field[:, chosen]
                        for name, field in rollout.items()
                    }

    @torch.no_grad()
    def play(self, environments, state, starts):
        rows = []
        for _ in range(HORIZON):
            row = {"observation": environments.observation, "starts": starts, "place": environments.place.clone(),
                   "episode": environments.episode.clone()}  # fmt: skip
            scores, value, state = self.policy(row["observation"][None], state, starts[None])
            choice = torch.distributions.Categorical(logits=scores[0])
            row["action"] = choice.sample()
            row["log_probability"], row["value"] = choice.log_prob(row["action"]), value[0]
            last = row["place"]
            row["reward"], starts = environments.step(row["action"])
            rows.append(row)
        return rows, state, starts, last


def make_loader(policy, **options):
    return DataLoader(Rollouts(policy, **options), batch_size=None)


def stamps_of(batch):
    return diagnosis.Stamps(
        step=batch["place"].t(), sequence=batch["episode"].t(), starts=batch["starts"].t(), restored=batch["before"]
    )


def make_model():
    torch.manual_seed(0)
    return Policy()


def loss_of(policy, batch):
    """PPO: the clipped ratio with the reward of a step as its advantage, and the critic's error."""
    state = (batch["hidden"][None], batch["cell"][None])
    scores, value, _ = policy(batch["observation"], state, batch["starts"])
    choice = torch.distributions.Categorical(logits=scores)
    ratio = (choice.log_prob(batch["action"]) - batch["log_probability"]).exp()
    advantage = batch["reward"]
    surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return -surrogate.mean() + 0.5 * (value - batch["returns"]).square().mean() - 0.01 * choice.entropy().mean()


def train(policy):
    """The loop without Lightning; returns what each rollout lost."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    loader = make_loader(policy, number=25)
    for batch in loader:
        optimizer.zero_grad()
        loss_of(policy, batch).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimizer.step()
    return [-reward for reward in loader.dataset.rewards]


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.policy = make_model()

    def training_step(self, batch, batch_idx):
        return loss_of(self.policy, batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    module = Training()
    return module, make_loader(module.policy), None


def follow():
    return diagnosis.reach(make_loader(make_model()), stamps=stamps_of)


def watch():
    return diagnosis.StateAudit("count", stamps=stamps_of)


def play_without_an_end(policy, observations, state):
    """Scores, and the state left; no episode begins."""
    scores, _, state = policy(observations, state, torch.zeros(observations.shape[:2], dtype=torch.bool))
    return scores, state


def observations(lanes, steps):
    return torch.randn(steps, lanes, FEATURES)


def shake(policy):
    return diagnosis.probe(policy, inputs=observations, call=play_without_an_end)
