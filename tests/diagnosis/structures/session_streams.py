"""Sessions of a shop, as they come: a state for each session in a dict, as many rows as sessions have something new."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from echo_torch import diagnosis

ITEMS, SIZE, CLICKS, NO_CLICK = 25, 8, 2, -100


class NextItem(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(ITEMS, SIZE)
        self.drop = nn.Dropout(0.1)
        self.gru = nn.GRU(SIZE, SIZE, batch_first=True)
        self.output = nn.Linear(SIZE, ITEMS)

    def forward(self, clicks, hidden):
        features, hidden = self.gru(self.drop(self.embedding(clicks)), hidden)
        return self.output(features), hidden


class StatesOfSessions:
    """The states by session: of shape (1, SIZE) each, zeros for a new session."""

    def __init__(self):
        self.states = {}

    def put_in(self, sessions):
        states = [self.states.get(session, torch.zeros(1, SIZE)) for session in sessions.tolist()]
        return torch.stack(states, dim=1)

    def keep(self, sessions, hidden, has_ended):
        for row, session in enumerate(sessions.tolist()):
            self.states[session] = hidden[:, row].detach()
            if has_ended[row]:
                del self.states[session]


class Events(IterableDataset):
    """Two clicks a time of some of the open sessions, in whatever row; a session that ends makes room for the next."""

    def __init__(self, number=30, num_open=5):
        draw = torch.Generator().manual_seed(7)
        lengths = torch.randint(3, 12, (number,), generator=draw).tolist()
        begins = torch.randint(ITEMS, (number,), generator=draw).tolist()
        self.sessions = [
            (begin + 2 * torch.arange(length)) % ITEMS for begin, length in zip(begins, lengths, strict=True)
        ]
        self.num_open = num_open

    def __iter__(self):
        draw = torch.Generator().manual_seed(8)
        num_read = dict.fromkeys(range(self.num_open), 0)  # of each open session
        last = {}  # the place of the last click that was handed out
        waiting = iter(range(self.num_open, len(self.sessions)))
        while num_read:
            some = [session for session in num_read if torch.rand((), generator=draw) < 0.6]
            if not some:
                continue
            batch = self.batch(some, num_read)
            yield {**batch, "before": torch.tensor([last.get(session, -1) for session in some])}
            last.update(zip(some, batch["place"].max(dim=1).values.tolist(), strict=True))
            for session, has_ended in zip(some, batch["has_ended"].tolist(), strict=True):
                num_read[session] += CLICKS
                if has_ended:
                    del num_read[session]
                    num_read.update({following: 0 for following in [next(waiting, None)] if following is not None})

    def batch(self, some, num_read):
        clicks = torch.zeros(len(some), CLICKS, dtype=torch.long)
        following, place = torch.full_like(clicks, NO_CLICK), torch.full_like(clicks, -1)
        has_ended = torch.zeros(len(some), dtype=torch.bool)
        for row, session in enumerate(some):
            whole, begin = self.sessions[session], num_read[session]
            end = min(begin + CLICKS, len(whole) - 1)
            clicks[row, : end - begin] = whole[begin:end]
            following[row, : end - begin] = whole[begin + 1 : end + 1]
            place[row, : end - begin] = torch.arange(begin, end)
            has_ended[row] = end == len(whole) - 1
        session = torch.tensor(some)
        return {"session": session, "clicks": clicks, "following": following, "place": place, "has_ended": has_ended}


def make_loader():
    return DataLoader(Events(), batch_size=None)


def stamps_of(batch):
    return diagnosis.Stamps(
        step=batch["place"], sequence=batch["session"], starts=batch["before"] < 0, restored=batch["before"]
    )


def make_model():
    torch.manual_seed(0)
    return NextItem()


def loss_of(scores, following):
    return F.cross_entropy(scores.flatten(0, 1), following.flatten(), ignore_index=NO_CLICK)


def train(model):
    """The loop without Lightning."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        states = StatesOfSessions()
        for batch in make_loader():
            optimizer.zero_grad()
            scores, hidden = model(batch["clicks"], states.put_in(batch["session"]))
            loss = loss_of(scores, batch["following"])
            loss.backward()
            optimizer.step()
            states.keep(batch["session"], hidden, batch["has_ended"])
            losses.append(loss.item())
    return losses


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model()
        self.states = StatesOfSessions()

    def training_step(self, batch, batch_idx):
        scores, hidden = self.model(batch["clicks"], self.states.put_in(batch["session"]))
        self.states.keep(batch["session"], hidden, batch["has_ended"])
        return loss_of(scores, batch["following"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def make_training():
    return Training(), make_loader(), None


def follow():
    return diagnosis.reach(make_loader(), stamps=stamps_of)


def watch():
    return diagnosis.StateAudit("count", stamps=stamps_of)


def shake(model):
    return diagnosis.probe(model, ITEMS, state=lambda lanes: torch.zeros(1, lanes, SIZE))
