"""A laboratory for recurrent networks with carried state, on PyTorch Lightning.

The parts, in the order in which data flows through them; each imports only parts before it:

    sequences -> framing -> layout -> stream -> model + state -> lightning_module -> runner -> report

The names below are imported when they are first used, so that `import echo_torch` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echo_torch.chunk import Chunk
    from echo_torch.encoding import one_hot_decode, one_hot_encode
    from echo_torch.evaluation import Evaluation, evaluate
    from echo_torch.experiments import EXPERIMENTS, Configuration, configure
    from echo_torch.framing import Frames, frame_windows
    from echo_torch.inference import EchoPredictor, OnlineEcho
    from echo_torch.layout import LaneLayout, WindowLayout
    from echo_torch.lightning_module import EchoModule
    from echo_torch.model import EchoLSTM
    from echo_torch.reach import Stamps
    from echo_torch.results import RunDirectory
    from echo_torch.runner import train
    from echo_torch.sequences import RandomSymbols, generate_sequence
    from echo_torch.state import LSTMState, detach_state, reset_state
    from echo_torch.stream import EchoStream

_HOMES = {
    "Chunk": "chunk",
    "Configuration": "experiments",
    "EXPERIMENTS": "experiments",
    "EchoLSTM": "model",
    "EchoModule": "lightning_module",
    "EchoPredictor": "inference",
    "EchoStream": "stream",
    "Evaluation": "evaluation",
    "Frames": "framing",
    "LSTMState": "state",
    "OnlineEcho": "inference",
    "LaneLayout": "layout",
    "RandomSymbols": "sequences",
    "RunDirectory": "results",
    "Stamps": "reach",
    "WindowLayout": "layout",
    "configure": "experiments",
    "detach_state": "state",
    "evaluate": "evaluation",
    "frame_windows": "framing",
    "generate_sequence": "sequences",
    "one_hot_decode": "encoding",
    "one_hot_encode": "encoding",
    "reset_state": "state",
    "train": "runner",
}

__all__ = [  # noqa: RUF022 - the order of _HOMES
    "Chunk", "Configuration", "EXPERIMENTS", "EchoLSTM", "EchoModule", "EchoPredictor", "EchoStream",
    "Evaluation", "Frames", "LSTMState", "LaneLayout", "OnlineEcho", "RandomSymbols", "RunDirectory",
    "Stamps", "WindowLayout", "configure", "detach_state", "evaluate", "frame_windows", "generate_sequence",
    "one_hot_decode", "one_hot_encode", "reset_state", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
