"""What a lane has read when it is asked: computed from chunks alone, before any training.

A stateful network can only echo a symbol that entered its own row of the batch, and can only learn to keep it if
a gradient gets from the question back to the step where it was read. Both are facts about the data path. They are
found here by following every lane through the chunks.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from echo_torch.data.stream import EchoStream
from echo_torch.diagnosis.data_path.batches import Batches, draws_given_back
from echo_torch.diagnosis.data_path.following import Followed
from echo_torch.diagnosis.stamps import CheckedStamps, Stamps, stamps_of_chunk, whole_number
from echo_torch.errors import RuleError, shorten
from echo_torch.waiting import Progress, Waiting

OTHER = "other"  # the gap of a hand-over into another sequence
DEFAULT_MAX_LAG = 24
_MANY_SIZES = 4  # of gaps, among which none is usual, for which chunks count as shuffled


@dataclass(frozen=True)
class Reach:
    """What the data path allows.

    Attributes:
        gap: The steps between two successive reads of a lane, where it is the same for all hand-overs that are
            not 0: 5 skips five steps, -1 reads one step twice; 0 if all are 0; None if there are several.
        gaps: How often each gap occurs; "other" counts the hand-overs into another sequence without a reset.
        reachable_lags: Every lag up to the largest one looked at for which some asked target's symbol had been read.
        lag: The lag that is asked; None where the stamps say where answers lie, or nobody does.
        reachable_share: Share of the asked targets whose answers the lane had read since its reset; None if none
            is asked, or nobody says where answers lie.
        in_horizon_share: Share whose answers were read inside the very chunk that asks for them.
        ceiling: The best accuracy that any model could have; None where symbols are not known to be uniform.
        targets: How many targets were looked at.
        chunks: In how many chunks.
        borders: As `gaps`, of the hand-overs from one chunk to a later one alone.
        seam: As `gaps`, of the hand-overs from the last chunk to the first one of a second pass, if no state is reset
            there; None where no second pass was seen.
        rows: How many chunks have each number of rows.
        row_changes: How often the number of rows changes without a reset of all of them.
        first_row_change: The number of the first such chunk, counted from 0; None where there is none.
        before_start: How many targets ask for what lies before their sequence begins, or before the first step of all
            that their row reads: there the beginning of a training asks too early.
        empty_chunks: The numbers of chunks that hold nothing.
        is_whole: Whether all chunks were looked at.
    """

    gap: int | None
    gaps: dict[int | str, int]
    reachable_lags: list[int]
    lag: int | None
    reachable_share: float | None
    in_horizon_share: float | None
    ceiling: float | None
    targets: int
    chunks: int
    borders: dict[int | str, int]
    seam: dict[int | str, int] | None
    rows: dict[int, int]
    row_changes: int
    first_row_change: int | None
    before_start: int
    empty_chunks: list[int]
    is_whole: bool

    @property
    def faults(self) -> tuple[str, ...]:
        """What a carried state would suffer from, empty where each row goes on where its state ended.

        "rows-changed": a chunk has another number of rows; "other-sequence": a state goes on into another sequence;
        "shuffled": at most hand-overs from chunk to chunk, or most of all, gaps of many sizes, forward and back; else
        "rows-skip" and "rows-reread".
        """
        jumps = _jumps(self.gaps)
        is_usual = _is_usual(jumps, self.gaps) or _is_usual(_jumps(self.borders), self.borders)
        jumps_at_random = is_shuffled(jumps) and is_usual
        found = {
            "rows-changed": bool(self.row_changes),
            "other-sequence": OTHER in self.gaps,
            "shuffled": jumps_at_random,
            "rows-skip": not jumps_at_random and any(gap > 0 for gap in jumps),
            "rows-reread": not jumps_at_random and any(gap < 0 for gap in jumps),
        }
        return tuple(name for name, is_found in found.items() if is_found)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        seam = None if self.seam is None else _with_text_keys(self.seam)
        tables = {name: _with_text_keys(getattr(self, name)) for name in ("gaps", "borders", "rows")}
        return {**asdict(self), **tables, "seam": seam, "faults": list(self.faults)}


def is_shuffled(jumps: Mapping[int, int]) -> bool:
    """Whether gaps other than 0 are of many sizes, forward and back, none of them usual.

    Args:
        jumps: How often each occurs.
    """
    is_both_ways = len(jumps) >= _MANY_SIZES and min(jumps) < 0 < max(jumps)
    return is_both_ways and 2 * max(jumps.values()) < sum(jumps.values())


def _jumps(gaps: Mapping[int | str, int]) -> dict[int, int]:
    return {gap: number for gap, number in gaps.items() if isinstance(gap, int) and gap != 0}


def _is_usual(jumps: Mapping[int, int], gaps: Mapping[int | str, int]) -> bool:
    return 2 * sum(jumps.values()) >= sum(gaps.values()) > 0


def _with_text_keys(counts: dict[Any, int]) -> dict[str, int]:
    return {str(key): number for key, number in counts.items()}


def reach(
    chunks: Iterable[Any],
    lag: int | None = None,
    *,
    vocabulary_size: int | None = None,
    max_lag: int = DEFAULT_MAX_LAG,
    max_chunks: int | None = None,
    is_repeated: bool = True,
    stamps: Callable[[Any], Stamps] = stamps_of_chunk,
    progress: Progress = False,
) -> Reach:
    """Follow every lane through the chunks and say what it had read when it was asked.

        stateful: row 0 reads steps 1, 7, 13, 19 of a sequence, one a chunk, and is asked for x(t-1)
        hand-overs 1 -> 7, 7 -> 13, 13 -> 19: gap 5.  Lags it could answer: 0, 6, 12, 18.  Not 1.

    >>> from echo_torch import EchoStream, RandomSymbols, WindowLayout, frame_windows
    >>> windows = frame_windows(length=25, window_length=1, lag=1, num_dropped=1)
    >>> stream = EchoStream(WindowLayout(windows, length=25, batch_size=6), RandomSymbols(100), num_chunks=80)
    >>> found = reach(stream, lag=1, vocabulary_size=100)
    >>> found.gap, found.reachable_lags, found.ceiling
    (5, [0, 6, 12, 18], 0.01)

    A loader of one's own is easiest to look at where it runs over positions instead of the data: see `reach_of`.

    Args:
        chunks: Batches in the order of training: this project's chunks, or anything that `stamps` understands. The
            global random states, and the generators of a DataLoader, are afterwards as they were.
        lag: How many steps back the answers lie, at least 0; None: where `Stamps.answers` says, or nobody knows, and
            gaps alone are found.
        vocabulary_size: Number of symbols, if they are uniform and independent; needed for the ceiling.
        max_lag: The largest lag that is looked for.
        max_chunks: So many chunks are looked at, at most; None: all, of a stream without end 200, and where they
            cannot be counted before at most 10,000.
        is_repeated: Whether a training reads the chunks more than once: then the first chunk of a second pass is looked
            at too, where all of the first were and they can be iterated again.
        stamps: Batch -> `Stamps`, for a loader of one's own.
        progress: Whether a progress bar is drawn on standard error where it takes longer than two seconds; "line": a
            sentence says how long it takes.

    Returns:
        The gaps, reachable lags, shares and ceiling over the chunks looked at.

    Raises:
        RuleError: If a number is out of range, there are no chunks, or stamps have the wrong shape.
        RuleError: If stamps are not integers and booleans.
    """
    _check(chunks, stamps, lag=lag, max_lag=max_lag, max_chunks=max_chunks)
    lag, max_lag, max_chunks = whole_number(lag), operator.index(max_lag), whole_number(max_chunks)
    is_own_stream = isinstance(chunks, EchoStream)
    followed = Followed(lag, max_lag)
    read = Batches(chunks, stamps, max_chunks)
    # A loader that shuffles draws its order from the global generators, and the training must draw the same one.
    with (
        nullcontext() if is_own_stream else draws_given_back(chunks),
        Waiting("Following what each row reads", read.total, "chunks", progress=progress) as waiting,
    ):
        for block in read.blocks():
            followed.add(block)
            waiting.done = followed.num_chunks
        if not followed.num_chunks:
            got = "empty ones alone" if read.empty else "none"
            raise RuleError("chunks", "$chunks must hold at least one chunk that is not empty", got)
        followed.close()
        seam = _seam(chunks, stamps, read.last) if is_repeated and read.is_whole else None
    return _found(followed, read, vocabulary_size, seam)


def _check(chunks: Any, stamps: Any, **numbers: Any) -> None:
    for name, number in numbers.items():
        whole, low = whole_number(number), int(name == "max_chunks")
        if (whole is None or whole < low) and (number is not None or name == "max_lag"):
            raise RuleError(name, f"${name} must be a whole number of at least {low}", shorten(repr(number)))
    if not callable(stamps):
        way_out = "hand over a function: lambda batch: Stamps(step=batch[0])"
        raise RuleError("stamps", "$stamps must be a function of a batch", shorten(repr(stamps)), way_out=way_out)
    if not isinstance(chunks, Iterable):
        rule = "$chunks must be batches that can be iterated"
        raise RuleError("chunks", rule, type(chunks).__name__, way_out="hand over the loader of the training")


def _found(followed: Followed, read: Batches, vocabulary_size: int | None, seam: Followed | None) -> Reach:
    asked = followed.asked
    is_known = bool(asked) and followed.knows_answers
    share = followed.read_before / asked if is_known else None
    gaps = _gaps(followed.gaps, followed.num_other)
    jumps = [gap for gap in gaps if gap not in (0, OTHER)]
    return Reach(
        gap=0 if not jumps else int(jumps[0]) if len(jumps) == 1 else None,
        gaps=gaps,
        reachable_lags=np.flatnonzero(followed.is_reachable).tolist(),
        lag=followed.lag,
        reachable_share=share,
        in_horizon_share=followed.read_in_chunk / asked if is_known else None,
        ceiling=None if share is None or vocabulary_size is None else share + (1 - share) / vocabulary_size,
        targets=asked,
        chunks=followed.num_chunks,
        borders=_gaps(followed.borders, followed.num_other_at_borders),
        seam=None if seam is None else _gaps(seam.borders, seam.num_other_at_borders),
        rows=dict(sorted(followed.rows.items())),
        row_changes=len(followed.row_changes),
        first_row_change=_with_empty_ones(followed.row_changes[0], read.empty) if followed.row_changes else None,
        before_start=followed.before_start,
        empty_chunks=read.empty,
        is_whole=read.is_whole,
    )


def _with_empty_ones(number: int, empty: list[int]) -> int:
    """The number of a chunk among all, where the empty ones were not counted."""
    for one in empty:
        number += one <= number
    return number


def _gaps(counts: Counter[int], num_other: int) -> dict[int | str, int]:
    gaps: dict[int | str, int] = dict(sorted(counts.items()))
    if num_other:
        gaps[OTHER] = num_other
    return gaps


def _seam(chunks: Iterable[Any], stamps: Callable[[Any], Stamps], last: CheckedStamps | None) -> Followed | None:
    """What the hand-overs into a second pass are like; None where there is none, or another number of rows."""
    if last is None or isinstance(chunks, Iterator):
        return None
    first = next(iter(Batches(chunks, stamps, 1).blocks()), None)
    if first is None or first.step.shape[1] != last.step.shape[1]:
        return None
    followed = Followed(None, 0)
    for block in (last, first):
        followed.add(block._replace(answers=np.zeros((*block.step.shape, 0), np.int64)))
    followed.close()
    return followed
