"""A script that people could have: it trains a recurrent network, in one of several ways, and says what came of it."""

import argparse
import copy
import hashlib
import io
import multiprocessing
import os
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.randn(6, 3, generator=torch.Generator().manual_seed(index))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, rows, state=None):
        output, state = self.lstm(rows, state)
        return self.head(output), state


def digest(model):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


def in_a_child(results):
    model = Net()
    train(model, argparse.Namespace(workers=0, method=None, fault=None, epochs=1, ends=None))
    results.put(digest(model))


def train(model, asked):
    optimizer, state = torch.optim.Adam(model.parameters()), None
    loader = DataLoader(Rows(), 4, num_workers=asked.workers, multiprocessing_context=asked.method, shuffle=True)
    for _ in range(asked.epochs):
        for rows in loader:
            output, state = model(rows, state)
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
            state = [field.detach() for field in state]
            if asked.fault == "swap":
                state.reverse()
            if asked.ends == "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            if asked.ends == "error":
                model(rows[..., :2])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--method")
    parser.add_argument("--fault")
    parser.add_argument("--ends")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--child")
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = Net()
    train(model, asked)
    print(digest(model), torch.rand(1).item())
    saved = io.BytesIO()
    torch.save(copy.deepcopy(model), saved)
    saved.seek(0)
    print(digest(torch.load(saved, weights_only=False)), type(model), vars(model.lstm).keys())
    print(len(saved.getvalue()), hashlib.sha256(saved.getvalue()).hexdigest())
    if asked.child:
        context = multiprocessing.get_context(asked.child)
        results = context.Queue()
        process = context.Process(target=in_a_child, args=(results,))
        process.start()
        print(len(results.get()))
        process.join()
        print(process.exitcode)


if __name__ == "__main__":
    main()
