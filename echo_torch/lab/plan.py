"""A plan: what a configuration stands for, each part made once. Everything but the training."""

from __future__ import annotations

import copy
import dataclasses
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from echo_torch.data.chunk import Chunk
from echo_torch.data.layout import Layout, WindowLayout
from echo_torch.data.own_symbols import OwnNumbers
from echo_torch.data.random_symbols import Missing
from echo_torch.data.stream import EchoStream
from echo_torch.diagnosis.data_path.batches import DEFAULT_MAX_CHUNKS
from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG, Reach, reach
from echo_torch.experiments.configuration import Configuration, memory_length
from echo_torch.experiments.model_options import read_model_options
from echo_torch.experiments.options import is_own_model
from echo_torch.experiments.readings import Bounded, Reading
from echo_torch.lab.sources import symbols_of
from echo_torch.lab.surroundings import plain_torch
from echo_torch.models.networks import EchoGRU, EchoLSTM, EchoMLP, EchoModel, EchoRNN
from echo_torch.models.own_model import Network, build, check_model, own_model_class, source_digest
from echo_torch.models.state import RecurrentModel
from echo_torch.randomness import seeded
from echo_torch.training.evaluation import Evaluation, answers, evaluate, reset_at_every_chunk
from echo_torch.waiting import Progress

EVALUATION_SEQUENCES = 1000
REACH_SEQUENCES = 20


class Plan:
    """The source, layout, streams, network and reach of a run.

    Args:
        configuration: Of the run.
        numbers: Its own data, where they are open already.

    Attributes:
        configuration: Of the run.

    Raises:
        UserError: Where the user's own data are first used, if they cannot be read or do not fit.
    """

    def __init__(self, configuration: Configuration, numbers: OwnNumbers | None = None) -> None:
        self.configuration = configuration
        self._symbols = symbols_of(configuration, numbers)
        self._evaluations: dict[int, Bounded] = {}
        self._is_checked = False
        self._reach_found: Reach | None = None

    def with_kernel(self, kernel: str) -> Plan:
        """The same plan, its updates computed in this way; what was made already is shared."""
        other = copy.copy(self)
        other.configuration = dataclasses.replace(self.configuration, kernel=kernel)
        return other

    @property
    def num_updates(self) -> int:
        """How many updates the training makes."""
        return self.configuration.reading.num_updates

    @property
    def reading(self) -> Reading:
        """The reading as it goes through the training's symbols: of a user's own, a sequence is a piece of a series."""
        return self._symbols.reading

    @cached_property
    def layout(self) -> Layout:
        """Which lane of which chunk reads which step, in training."""
        return self.reading.layout()

    @property
    def num_answered(self) -> int:
        """So many of the last columns of each chunk hold whatever is asked."""
        return self.layout.num_answered if isinstance(self.layout, WindowLayout) else self.layout.num_steps

    @property
    def digest(self) -> str | None:
        """A fingerprint of the user's own data; None where symbols are random."""
        return self._symbols.digest

    @property
    def is_uniform(self) -> bool:
        """Whether the symbols are random, each as likely as the others."""
        return self._symbols.uniform_over is not None

    def training(self, start: int = 0, rank: int = 0, num_ranks: int = 1) -> EchoStream:
        """The stream a run trains on, from a chunk on: without end, the Trainer counts the updates.

        Args:
            start: The first chunk's number.
            rank: This process, as in `EchoStream`.
            num_ranks: Processes that share the lanes.
        """
        return self._stream("training", self.layout, start=start, rank=rank, num_ranks=num_ranks)

    def evaluation(self, num_sequences: int = EVALUATION_SEQUENCES, *, rank: int = 0, num_ranks: int = 1) -> EchoStream:
        """Fresh data that training never sees, framed, carried and asked as in training.

        Args:
            num_sequences: How many sequences are read. Lanes have no such number: they are read until 25 targets for
                each of them were asked. Of a user's own data all that is held out is read, once.
            rank: This process, as in `EchoStream`.
            num_ranks: Processes that share the lanes.
        """
        if num_sequences not in self._evaluations:  # a run evaluates three times, and a validation each time anew
            self._evaluations[num_sequences] = self._symbols.evaluation(num_sequences)
        layout, num_chunks = self._evaluations[num_sequences]
        return self._stream("evaluation", layout, num_chunks=num_chunks, rank=rank, num_ranks=num_ranks)

    def _stream(self, split: str, layout: Layout, **options: Any) -> EchoStream:
        c = self.configuration
        is_missing = Missing(c.missing, c.seed, split) if c.missing else None
        return EchoStream(layout, self._symbols.source(split), is_missing=is_missing, **options)

    def example(self, model: RecurrentModel[Any], *, progress: Progress = False) -> tuple[list[int], list[int]]:
        """One evaluation sequence in the tutorial's form, of lanes the first: (expected, predicted)."""
        layout, num_chunks = self._symbols.example()
        return answers(model, self._stream("evaluation", layout, num_chunks=num_chunks), progress=progress)

    def first_chunks(self, num_chunks: int = 24) -> list[Chunk]:
        """The chunks that training begins with."""
        return list(islice(self.training(), num_chunks))

    @property
    def has_own_model(self) -> bool:
        """Whether its model is a class of the user's own; nothing of it is run before it is asked for."""
        return is_own_model(self.configuration.model)

    @property
    def model_digest(self) -> str | None:
        """A fingerprint of the file that defines the user's own model; None for the networks here.

        Raises:
            UserError: As `check_model`.
        """
        return source_digest(own_model_class(self.configuration.model)) if self.has_own_model else None

    def check_data(self) -> None:
        """Refuse a user's own data that cannot be trained on or, at the end, evaluated on, before anything is made.

        Raises:
            UserError: If they cannot be read, do not fit the configuration or are too few.
        """
        if self.configuration.data is not None:
            self.training()
            self.evaluation()

    @plain_torch()
    def check_model(self) -> None:
        """Refuse a user's own model that cannot be trained, before anything is made. The networks here can.

        Raises:
            UserError: If it cannot be imported or built, stands in no file, or breaks a rule.
        """
        if self.model_digest is not None and not self._is_checked:
            with seeded(self.configuration.seed):
                check_model(self._own_model(), self.configuration.vocabulary_size)
            self._is_checked = True

    @plain_torch()
    def model(self) -> Network:
        """The network with its first weights, drawn from the seed; the global random state is left as it was.

        Raises:
            UserError: As `check_model`.
        """
        self.check_model()
        if not self.has_own_model:
            return _network(self.configuration)
        with seeded(self.configuration.seed):  # it draws from where it likes
            return self._own_model()

    def _own_model(self) -> Network:
        c = self.configuration
        return build(own_model_class(c.model), c.vocabulary_size, read_model_options(c.model_options))

    def reach(self, *, progress: Progress = False) -> Reach:
        """What the data path of the training allows: its first 20 sequences, of endless lanes the first 200 chunks.

        It is found once.

        Args:
            progress: As of `reach`.
        """
        num_chunks = self.configuration.reading.num_chunks(REACH_SEQUENCES)
        max_chunks, max_lag = num_chunks or DEFAULT_MAX_CHUNKS, max(DEFAULT_MAX_LAG, self.configuration.reading.lag)
        if self._reach_found is None:
            chunks = self.training()
            self._reach_found = self._reach(chunks, max_chunks=max_chunks, max_lag=max_lag, progress=progress)
        return self._reach_found

    def evaluation_ceiling(self, *, progress: Progress = False) -> float | None:
        """The best accuracy that any model could have in the evaluation, with the symbols that are missing there.

        Args:
            progress: As of `reach`.
        """
        # Where nothing is missing, random sequences are all read alike, so the share is that of the first.
        is_of_one = self.is_uniform and not self.configuration.missing and self.configuration.reading.num_chunks(1)
        stream = self.evaluation(1 if is_of_one else EVALUATION_SEQUENCES)
        return self._reach(stream, max_chunks=stream.num_chunks or 0, max_lag=0, progress=progress).ceiling

    def _reach(self, chunks: EchoStream, **options: Any) -> Reach:
        lag = self.configuration.reading.lag
        return reach(chunks, lag, vocabulary_size=self._symbols.uniform_over, is_repeated=False, **options)

    @plain_torch()
    def evaluate(self, model: RecurrentModel[Any], *, is_reset: bool = False, progress: Progress = False) -> Evaluation:
        """The evaluation of the run: `EVALUATION_SEQUENCES` sequences, nothing thrown away.

        Args:
            model: Its network.
            is_reset: Whether the state is reset at every chunk, whatever the run does: the same questions, asked of
                the same weights without what is handed over.
            progress: As of `evaluate`.
        """
        chunks = self.evaluation()
        doing = f"Evaluating, the state {'reset at every chunk' if is_reset else 'as in training'}"
        max_chunks = self.configuration.reading.max_chunks_told_apart
        read = reset_at_every_chunk(chunks) if is_reset else chunks
        return evaluate(model, read, max_chunks=max_chunks, progress=progress, doing=doing)


def _network(c: Configuration) -> EchoModel:
    common: dict[str, Any] = {"base": c.base, "generator": torch.Generator("cpu").manual_seed(c.seed)}
    if c.model == "lstm":
        return EchoLSTM(c.vocabulary_size, c.hidden_size, c.layers, init=c.init, **common)
    if (window_length := memory_length(c)) is not None:
        return EchoMLP(c.vocabulary_size, c.hidden_size, window_length, **common)
    recurrent = {"gru": EchoGRU, "rnn": EchoRNN}[c.model]
    return recurrent(c.vocabulary_size, c.hidden_size, c.layers, **common)
