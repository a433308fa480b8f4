"""From a configuration to its objects: layout, streams, model, reach. Everything but the training."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch

from echo_torch.chunk import Chunk
from echo_torch.evaluation import Evaluation, answers, evaluate
from echo_torch.experiments import Configuration, given, replace
from echo_torch.framing import NO_STEP, frame_windows
from echo_torch.layout import LaneLayout, Layout, WindowLayout
from echo_torch.model import EchoLSTM
from echo_torch.reach import DEFAULT_MAX_CHUNKS, DEFAULT_MAX_LAG, Reach, reach
from echo_torch.sequences import RandomSymbols
from echo_torch.state import RecurrentModel
from echo_torch.stream import EchoStream

EVALUATION_SEQUENCES = 1000
REACH_SEQUENCES = 20
TARGETS_PER_SEQUENCE = 25  # where there are lanes and no sequences: as many as the tutorial's sequence has steps
# Read side by side, so that evaluation takes a moment; a sequence never sees another.
_SEQUENCES_AT_ONCE = 50


def build_layout(configuration: Configuration) -> Layout:
    """Which lane of which chunk reads which step."""
    return _windows(configuration) if configuration.window is not None else _lanes(configuration)


def _windows(c: Configuration, *, sequences_at_once: int = 1) -> WindowLayout:
    length = given(c.length)
    frames = frame_windows(length, given(c.window), c.lag, num_dropped=c.windows_dropped)
    return WindowLayout(
        frames, length, given(c.batch_size), carry=c.carry, cut=c.cut, sequences_at_once=sequences_at_once
    )


def _lanes(c: Configuration) -> LaneLayout:
    num_lanes = given(c.lanes)
    # Spread evenly over a sequence, so that about the same number of lanes resets at every chunk.
    first_steps = [lane * given(c.reset_every) // num_lanes for lane in range(num_lanes)] if c.stagger else None
    return LaneLayout(
        num_lanes, given(c.chunk), c.lag, reset_every=c.reset_every, first_steps=first_steps, carry=c.carry
    )


def build_source(configuration: Configuration, split: str) -> RandomSymbols:
    """The symbols of a split."""
    return RandomSymbols(configuration.vocabulary_size, configuration.seed, split)


def training_stream(configuration: Configuration, *, rank: int = 0, num_ranks: int = 1) -> EchoStream:
    """The stream a run trains on: without end, the Trainer counts the updates."""
    source = build_source(configuration, "training")
    return EchoStream(build_layout(configuration), source, rank=rank, num_ranks=num_ranks)


def evaluation_stream(configuration: Configuration, num_sequences: int = EVALUATION_SEQUENCES) -> EchoStream:
    """Fresh data that training never sees, framed, carried and asked as in training.

    Args:
        configuration: Of the run.
        num_sequences: How many sequences are read. Lanes have no such number: they are read until 25 targets for
            each of them were asked.
    """
    source = build_source(configuration, "evaluation")
    if configuration.window is None:
        layout = _lanes(configuration)
        return EchoStream(layout, source, num_chunks=_chunks_to_ask(layout, TARGETS_PER_SEQUENCE * num_sequences))
    at_once = next(n for n in range(min(_SEQUENCES_AT_ONCE, num_sequences), 0, -1) if num_sequences % n == 0)
    windows = _windows(configuration, sequences_at_once=at_once)
    return EchoStream(windows, source, num_chunks=num_sequences // at_once * windows.chunks_per_sequence)


def _chunks_to_ask(layout: Layout, num_targets: int) -> int:
    """After how many chunks so many targets were asked."""
    asked, num_chunks = 0, 0
    while asked < num_targets:
        places = layout.places(np.arange(num_chunks, num_chunks + 1))
        asked += int((places.answer != NO_STEP).sum())
        num_chunks += 1
    return num_chunks


def build_reach(configuration: Configuration) -> Reach:
    """What the data path of a run allows, from its first sequences or chunks."""
    stream = training_stream(configuration)
    return reach(
        stream,
        configuration.lag,
        vocabulary_size=configuration.vocabulary_size,
        max_lag=max(DEFAULT_MAX_LAG, configuration.lag),
        max_chunks=chunks_to_look_at(configuration),
    )


def first_chunks(configuration: Configuration, num_chunks: int = 24) -> list[Chunk]:
    """The chunks that training begins with."""
    return list(islice(training_stream(configuration), num_chunks))


def chunks_to_look_at(configuration: Configuration) -> int:
    """The first 20 sequences; of endless lanes the first 200 chunks."""
    if configuration.window is None:
        return DEFAULT_MAX_CHUNKS
    return REACH_SEQUENCES * _windows(configuration).chunks_per_sequence


def build_model(configuration: Configuration) -> EchoLSTM:
    """The network with its first weights, drawn from the seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(configuration.seed)
        c = configuration
        return EchoLSTM(c.vocabulary_size, c.hidden_size, c.layers, init=c.init)


def num_updates(configuration: Configuration) -> int:
    """How many updates the run makes."""
    if configuration.updates is not None:
        return configuration.updates
    return given(configuration.sequences) * _windows(configuration).chunks_per_sequence


def evaluate_model(configuration: Configuration, model: RecurrentModel[Any]) -> Evaluation:
    """The evaluation that belongs to a configuration: `EVALUATION_SEQUENCES` sequences, nothing thrown away."""
    return evaluate(model, evaluation_stream(configuration))


def example(configuration: Configuration, model: EchoLSTM) -> tuple[list[int], list[int]]:
    """One evaluation sequence in the tutorial's form, of lanes the first: (expected, predicted)."""
    if configuration.window is None:
        configuration = replace(configuration, lanes=1, stagger=False)
    return answers(model, evaluation_stream(configuration, num_sequences=1))
