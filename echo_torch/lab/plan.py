"""From a configuration to its objects: layout, streams, model, reach. Everything but the training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch

from echo_torch.data.chunk import Chunk
from echo_torch.data.framing import NO_STEP, Frames, frame_masked, frame_prefixes, frame_sequence, frame_windows
from echo_torch.data.layout import LaneLayout, Layout, WindowLayout
from echo_torch.data.own_symbols import OwnSymbols, line_above, open_series, split_bounds
from echo_torch.data.random_symbols import Integers, Missing, RandomSymbols
from echo_torch.data.stream import EchoStream
from echo_torch.diagnosis.data_path import DEFAULT_MAX_CHUNKS, DEFAULT_MAX_LAG, Reach, reach
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration, given, given_text, memory_length, replace
from echo_torch.models.networks import EchoGRU, EchoLSTM, EchoMLP, EchoModel, EchoRNN
from echo_torch.models.state import RecurrentModel
from echo_torch.training.evaluation import Evaluation, answers, evaluate, reset_at_every_chunk

EVALUATION_SEQUENCES = 1000
REACH_SEQUENCES = 20
MAX_CHUNKS_OF_A_LANE = 10  # told apart in an evaluation: a lane has no end
TARGETS_PER_SEQUENCE = 25  # where there are lanes and no sequences: as many as the tutorial's sequence has steps
# Read side by side, so that evaluation takes a moment; a sequence never sees another.
_SEQUENCES_AT_ONCE = 50


def build_layout(configuration: Configuration) -> Layout:
    """Which lane of which chunk reads which step."""
    return _lanes(configuration) if configuration.framing == "lanes" else _windows(configuration)


def build_frames(configuration: Configuration, length: int, *, num_dropped: int | None = None) -> Frames:
    """The rows that a sequence of so many steps is cut into, and what each is asked.

    Args:
        configuration: Of an experiment that reads sequences.
        length: Steps in the sequence.
        num_dropped: Windows left out at the front; None: as the experiment does it.
    """
    c = configuration
    if c.framing == "windows":
        num_dropped = c.windows_dropped if num_dropped is None else num_dropped
        return frame_windows(length, given(c.window), c.lag, num_dropped=num_dropped)
    if c.framing == "masked":
        return frame_masked(length, given(c.window), c.lag)
    return frame_prefixes(length, c.lag) if c.framing == "whole" else frame_sequence(length, c.lag)


def _windows(c: Configuration) -> WindowLayout:
    length, batch_size, at_once = given(c.length), given(c.batch_size), 1
    if c.framing == "sequence":  # a sequence is one row, so a batch holds several
        batch_size, at_once = 1, batch_size
    frames = build_frames(c, length)
    return WindowLayout(frames, length, batch_size, carry=c.carry, cut=c.cut, sequences_at_once=at_once)


def _evaluation_windows(c: Configuration, sequences_at_once: int) -> WindowLayout:
    """The windows of an evaluation: batch by batch also where training has all of a sequence in one chunk.

    Without gradients the cut makes no difference to any answer, and so the batches can be told apart and the state
    reset between them.
    """
    length = given(c.length)
    batch_size = 1 if c.framing == "sequence" else given(c.batch_size)
    return WindowLayout(build_frames(c, length), length, batch_size, carry=c.carry, sequences_at_once=sequences_at_once)


def _lanes(c: Configuration, split: str = "training") -> LaneLayout:
    num_lanes, reset_every = given(c.lanes), c.reset_every
    if c.data is not None:
        # Each lane reads a part of the file; where the parts are over, all begin again.
        reset_every = _piece_length(c, split)
        if split == "evaluation":
            num_lanes = min(num_lanes, _num_pieces(c, split))
    # Spread evenly over a sequence, so that about the same number of lanes resets at every chunk.
    first_steps = [lane * given(reset_every) // num_lanes for lane in range(num_lanes)] if c.stagger else None
    return LaneLayout(num_lanes, given(c.chunk), c.lag, reset_every=reset_every, first_steps=first_steps, carry=c.carry)


def build_source(configuration: Configuration, split: str) -> Callable[[Integers, Integers], Integers]:
    """The symbols of a split.

    Raises:
        UserError: If the user's own data cannot be read, or does not fit the configuration.
    """
    c = configuration
    if c.data is None:
        return RandomSymbols(c.vocabulary_size, c.seed, split)
    return _own_symbols(c, split)


def data_digest(configuration: Configuration) -> str | None:
    """A fingerprint of the user's own data; None where symbols are random."""
    c = configuration
    return None if c.data is None else open_series(c.data, column=c.column, series=c.series).digest


def _own_symbols(c: Configuration, split: str) -> OwnSymbols:
    data = open_series(given_text(c.data), column=c.column, series=c.series)
    if data.largest >= c.vocabulary_size:
        line = line_above(given_text(c.data), c.vocabulary_size - 1, column=c.column)
        raise UserError(
            f"{c.data!r} line {line}: with --vocabulary-size {c.vocabulary_size} every number must be below it, but "
            f"the largest is {data.largest}; leave the flag out to have it inferred."
        )
    source = OwnSymbols(data, split, _piece_length(c, split))
    needed = max((c.window or 1) + c.windows_dropped, c.lag + 1)
    if source.longest < needed:
        raise UserError(
            f"{c.data!r} is too short: for {split} its longest series leaves {source.longest} "
            f"numbers, and {needed} are needed to ask one question (the last tenth of the file is for evaluation)."
        )
    return source


def _piece_length(c: Configuration, split: str) -> int:
    """Steps of one sequence of the user's own data."""
    if c.framing != "lanes":
        return given(c.length)
    data = open_series(given_text(c.data), column=c.column, series=c.series)
    low, high = split_bounds(len(data.numbers), split)
    return c.reset_every or max(1, -(-(high - low) // given(c.lanes)))


def _num_pieces(c: Configuration, split: str) -> int:
    return _own_symbols(c, split).num_pieces


def _stream(c: Configuration, split: str, layout: Layout, **options: Any) -> EchoStream:
    is_missing = Missing(c.missing, c.seed, split) if c.missing else None
    return EchoStream(layout, build_source(c, split), is_missing=is_missing, **options)


def training_stream(configuration: Configuration, *, start: int = 0, rank: int = 0, num_ranks: int = 1) -> EchoStream:
    """The stream a run trains on, from a chunk on: without end, the Trainer counts the updates."""
    layout = build_layout(configuration)
    return _stream(configuration, "training", layout, start=start, rank=rank, num_ranks=num_ranks)


def evaluation_stream(
    configuration: Configuration, num_sequences: int = EVALUATION_SEQUENCES, *, rank: int = 0, num_ranks: int = 1
) -> EchoStream:
    """Fresh data that training never sees, framed, carried and asked as in training.

    Args:
        configuration: Of the run.
        num_sequences: How many sequences are read. Lanes have no such number: they are read until 25 targets for
            each of them were asked.
        rank: This process, as in `EchoStream`.
        num_ranks: Processes that share the lanes.
    """
    shard = {"rank": rank, "num_ranks": num_ranks}
    if configuration.data is not None:
        return _held_out_stream(configuration, **shard)
    if configuration.framing == "lanes":
        layout = _lanes(configuration)
        num_chunks = _chunks_to_ask(layout, TARGETS_PER_SEQUENCE * num_sequences)
        return _stream(configuration, "evaluation", layout, num_chunks=num_chunks, **shard)
    at_once = next(n for n in range(min(_SEQUENCES_AT_ONCE, num_sequences), 0, -1) if num_sequences % n == 0)
    windows = _evaluation_windows(configuration, at_once)
    return _stream(configuration, "evaluation", windows, num_chunks=windows.num_chunks(num_sequences), **shard)


def _held_out_stream(c: Configuration, **shard: int) -> EchoStream:
    """All of the user's held-out numbers, once."""
    num_pieces = _num_pieces(c, "evaluation")
    layout: Layout
    if c.framing == "lanes":
        layout = _lanes(c, "evaluation")
        chunks_per_piece = -(-_piece_length(c, "evaluation") // given(c.chunk))
        num_chunks = -(-num_pieces // layout.num_lanes) * chunks_per_piece
    else:
        layout = _evaluation_windows(c, min(_SEQUENCES_AT_ONCE, num_pieces))
        num_chunks = layout.num_chunks(num_pieces)
    return _stream(c, "evaluation", layout, num_chunks=num_chunks, **shard)


def _first_held_out(c: Configuration) -> EchoStream:
    """The first held-out sequence; of lanes its first questions."""
    layout: Layout
    if c.framing == "lanes":
        chunk, length = given(c.chunk), _piece_length(c, "evaluation")
        layout = LaneLayout(1, chunk, c.lag, reset_every=length, carry=c.carry)
        num_chunks = -(-min(length, TARGETS_PER_SEQUENCE + c.lag) // chunk)
    else:
        layout = _evaluation_windows(c, 1)
        num_chunks = layout.num_chunks(1)
    return _stream(c, "evaluation", layout, num_chunks=num_chunks)


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
    return _reach(configuration, training_stream(configuration), chunks_to_look_at(configuration))


def evaluation_ceiling(configuration: Configuration) -> float | None:
    """The best accuracy that any model could have in the evaluation, with the symbols that are missing there."""
    stream = evaluation_stream(configuration)
    return _reach(configuration, stream, given(stream.num_chunks)).ceiling


def _reach(c: Configuration, chunks: EchoStream, max_chunks: int) -> Reach:
    max_lag = max(DEFAULT_MAX_LAG, c.lag)
    # Nobody knows how far a user's own data can be guessed: there is no ceiling.
    vocabulary_size = c.vocabulary_size if c.data is None else None
    return reach(chunks, c.lag, vocabulary_size=vocabulary_size, max_lag=max_lag, max_chunks=max_chunks)


def first_chunks(configuration: Configuration, num_chunks: int = 24) -> list[Chunk]:
    """The chunks that training begins with."""
    return list(islice(training_stream(configuration), num_chunks))


def chunks_to_look_at(configuration: Configuration) -> int:
    """The first 20 sequences; of endless lanes the first 200 chunks."""
    if configuration.framing == "lanes":
        return DEFAULT_MAX_CHUNKS
    return _windows(configuration).num_chunks(REACH_SEQUENCES)


def build_model(configuration: Configuration) -> EchoModel:
    """The network with its first weights, drawn from the seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(configuration.seed)
        c = configuration
        if c.model == "lstm":
            return EchoLSTM(c.vocabulary_size, c.hidden_size, c.layers, init=c.init, base=c.base)
        if (window_length := memory_length(c)) is not None:
            return EchoMLP(c.vocabulary_size, c.hidden_size, window_length, base=c.base)
        recurrent = {"gru": EchoGRU, "rnn": EchoRNN}[c.model]
        return recurrent(c.vocabulary_size, c.hidden_size, c.layers, base=c.base)


def num_updates(configuration: Configuration) -> int:
    """How many updates the run makes."""
    if configuration.updates is not None:
        return configuration.updates
    return _windows(configuration).num_chunks(given(configuration.sequences))


def evaluate_model(configuration: Configuration, model: RecurrentModel[Any], *, is_reset: bool = False) -> Evaluation:
    """The evaluation that belongs to a configuration: `EVALUATION_SEQUENCES` sequences, nothing thrown away.

    Args:
        configuration: Of the run.
        model: Its network.
        is_reset: Whether the state is reset at every chunk, whatever the run does: the same questions, asked of the
            same weights without what is handed over.
    """
    chunks = evaluation_stream(configuration)
    max_chunks = MAX_CHUNKS_OF_A_LANE if configuration.framing == "lanes" else None
    return evaluate(model, reset_at_every_chunk(chunks) if is_reset else chunks, max_chunks=max_chunks)


def example(configuration: Configuration, model: RecurrentModel[Any]) -> tuple[list[int], list[int]]:
    """One evaluation sequence in the tutorial's form, of lanes the first: (expected, predicted)."""
    if configuration.data is not None:
        return answers(model, _first_held_out(configuration))
    if configuration.framing == "lanes":
        configuration = replace(configuration, lanes=1, stagger=False)
    return answers(model, evaluation_stream(configuration, num_sequences=1))
