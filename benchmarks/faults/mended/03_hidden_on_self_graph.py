"""Recordings of brain activity, one per subject, are classified by an LSTM. Mended: the recordings
are independent of each other, so the module stores no state and each recording begins with an
empty one; no graph outlives its update, and retain_graph is not needed.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 6
LEARNING_RATE = 0.001


class RecordingClassifier(nn.Module):
    def __init__(self, channels=5, hidden_size=12):
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden_size, batch_first=True)
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, recording):
        output, _ = self.lstm(recording)
        return self.linear(output[:, -1]).squeeze(-1)


def make_recordings(subjects, steps=9, channels=5):
    time = torch.arange(steps).view(1, steps, 1) * 0.4
    frequency = 0.5 + torch.rand(subjects, 1, channels)
    phase = 6.28 * torch.rand(subjects, 1, channels)
    recordings = torch.sin(frequency * time + phase) + 0.3 * torch.randn(subjects, steps, channels)
    labels = (frequency.mean(dim=(1, 2)) > 1.0).float()
    return recordings, labels


def main():
    torch.manual_seed(3)
    recordings, labels = make_recordings(60)
    loader = DataLoader(TensorDataset(recordings, labels), batch_size=BATCH_SIZE, shuffle=True)
    model = RecordingClassifier()
    for epoch in range(3):
        for recording, label in loader:
            model.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(recording), label)
            loss.backward()
            for parameter in model.parameters():
                parameter.data.add_(parameter.grad, alpha=-LEARNING_RATE)
    print(f"last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
