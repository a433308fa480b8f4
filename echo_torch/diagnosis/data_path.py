"""What a lane has read when it is asked: computed from chunks alone, before any training.

A stateful network can only echo a symbol that entered its own row of the batch, and can only learn to keep it if
a gradient gets from the question back to the step where it was read. Both are facts about the data path. They are
found here by following every lane through the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.stamps import Stamps, _checked_stamps, stamps_of_chunk
from echo_torch.errors import RuleError

OTHER = "other"  # the gap of a hand-over into another sequence
DEFAULT_MAX_LAG = 24
DEFAULT_MAX_CHUNKS = 200


@dataclass(frozen=True)
class Reach:
    """What the data path allows.

    Attributes:
        gap: The steps between two successive reads of a lane, where it is the same for all hand-overs that are
            not 0: 5 skips five steps, -1 reads one step twice; 0 if all are 0; None if there are several.
        gaps: How often each gap occurs; "other" counts the hand-overs into another sequence without a reset.
        reachable_lags: Every lag up to the largest one looked at for which some asked target's symbol had been read.
        lag: The lag that is asked.
        reachable_share: Share of the asked targets whose answer the lane had read since its reset; None if none
            is asked.
        in_horizon_share: Share whose answer was read inside the very chunk that asks for it, so that the gradient
            gets there.
        ceiling: The best accuracy that any model could have; None where symbols are not known to be uniform.
        targets: How many targets were looked at.
        chunks: In how many chunks.
    """

    gap: int | None
    gaps: dict[int | str, int]
    reachable_lags: list[int]
    lag: int
    reachable_share: float | None
    in_horizon_share: float | None
    ceiling: float | None
    targets: int
    chunks: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**asdict(self), "gaps": {str(gap): number for gap, number in self.gaps.items()}}


def reach(
    chunks: Iterable[Any],
    lag: int,
    *,
    vocabulary_size: int | None = None,
    max_lag: int = DEFAULT_MAX_LAG,
    max_chunks: int = DEFAULT_MAX_CHUNKS,
    stamps: Callable[[Any], Stamps] = stamps_of_chunk,
) -> Reach:
    """Follow every lane through some chunks and say what it had read when it was asked.

        stateful: row 0 reads steps 1, 7, 13, 19 of a sequence, one a chunk, and is asked for x(t-1)
        hand-overs 1 -> 7, 7 -> 13, 13 -> 19: gap 5.  Lags it could answer: 0, 6, 12, 18.  Not 1.

    >>> from echo_torch import EchoStream, RandomSymbols, WindowLayout, frame_windows
    >>> windows = frame_windows(length=25, window_length=1, lag=1, num_dropped=1)
    >>> stream = EchoStream(WindowLayout(windows, length=25, batch_size=6), RandomSymbols(100), num_chunks=80)
    >>> found = reach(stream, lag=1, vocabulary_size=100)
    >>> found.gap, found.reachable_lags, found.ceiling
    (5, [0, 6, 12, 18], 0.01)

    Args:
        chunks: Batches in the order of training: this project's chunks, or anything that `stamps` understands.
        lag: How many steps back the answers lie, at least 0.
        vocabulary_size: Number of symbols, if they are uniform and independent; needed for the ceiling.
        max_lag: The largest lag that is looked for.
        max_chunks: So many chunks are looked at, at most.
        stamps: Batch -> `Stamps`, for a loader of one's own.

    Returns:
        The gaps, reachable lags, shares and ceiling over the chunks looked at.

    Raises:
        RuleError: If a number is out of range, there are no chunks, or stamps have the wrong shape.
        RuleError: If stamps are not integers and booleans.
    """
    for name, number, low in (("lag", lag, 0), ("max_lag", max_lag, 0), ("max_chunks", max_chunks, 1)):
        if number < low:
            raise RuleError(name, f"${name} must be at least {low}", number)
    columns, num_chunks = _follow(islice(chunks, max_chunks), stamps)
    reads, asks = columns.where(columns.is_read), columns.where(columns.is_asked)
    gaps = _count_gaps(columns.where(columns.step >= 0))
    first_reads = _FirstReads(reads.stretch, reads.step, reads.time)
    found = [first_reads.time_of(asks.stretch, asks.step - back) <= asks.time for back in range(max_lag + 1)]
    is_reachable = found[lag] if lag <= max_lag else first_reads.time_of(asks.stretch, asks.step - lag) <= asks.time
    in_chunk = _FirstReads(reads.visit, reads.step, reads.time)
    is_in_horizon = in_chunk.time_of(asks.visit, asks.step - lag) <= asks.time
    num_asked = len(asks.step)
    share = float(is_reachable.mean()) if num_asked else None
    ceiling = None if share is None or vocabulary_size is None else share + (1 - share) / vocabulary_size
    jumps = [gap for gap in gaps if gap not in (0, OTHER)]
    return Reach(
        gap=0 if not jumps else int(jumps[0]) if len(jumps) == 1 else None,
        gaps=gaps,
        reachable_lags=[back for back, hits in enumerate(found) if hits.any()],
        lag=lag,
        reachable_share=share,
        in_horizon_share=float(is_in_horizon.mean()) if num_asked else None,
        ceiling=ceiling,
        targets=num_asked,
        chunks=num_chunks,
    )


def explain(found: Reach, *, memory_length: int | None = None, is_carried: bool = True) -> str:
    """What follows from a reach, in one sentence for a beginner.

    >>> batches = [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    >>> print(explain(reach(batches, lag=9, stamps=lambda batch: Stamps(step=batch))))
    A row that is asked for the symbol 9 steps ago has never read it.

    Args:
        found: The reach.
        memory_length: Steps that the network is shown at once, the current one among them; None: it is recurrent.
        is_carried: Whether a state is handed from chunk to chunk.
    """
    if found.reachable_share is None or found.in_horizon_share is None:
        return "Nothing is asked in these chunks, so there is nothing to learn."
    what = "the symbol just read" if found.lag == 0 else f"the symbol {found.lag} step{'s' * (found.lag > 1)} ago"
    best = "" if found.ceiling is None else f", so no training can get beyond {found.ceiling:.1%} on these"
    if found.reachable_share == 0:
        return f"A row that is asked for {what} has never read it{best}."
    if memory_length is None:
        horizon = _explain_horizon(found, is_carried=is_carried)
    else:
        among = "not among them" if memory_length <= found.lag else "among them, so no gradient has to cross a chunk"
        shown = "the current symbol" if memory_length == 1 else f"the last {memory_length} symbols"
        horizon = f"this network is shown {shown}, and the answer is {among}"
    if found.reachable_share == 1:
        return f"Every answer was read before by the row that is asked for it; {horizon}."
    whose = f"Only for {found.reachable_share:.1%} of the targets the answer"
    return f"{whose} was read before by the row that is asked for it{best}; {horizon}."


def reach_lines(found: Reach) -> list[str]:
    """The numbers of a reach, for people."""
    gaps = ", ".join(f"{number:,} x {gap}" for gap, number in found.gaps.items()) or "none"
    gap = "several" if found.gap is None else steps_of_gap(found.gap)
    lags = ", ".join(map(str, found.reachable_lags)) or "none"
    shares = [
        f"{'-' if share is None else f'{share:.1%}'}" for share in (found.reachable_share, found.in_horizon_share)
    ]
    ceiling = "unknown" if found.ceiling is None else f"{found.ceiling:.1%}"
    return [
        f"gap: {gap} (hand-overs by gap: {gaps})",
        f"reachable lags: {lags}",
        f"answers (lag {found.lag}) read before: {shares[0]}, within the same chunk: {shares[1]}, "
        f"of {found.targets:,} targets in {found.chunks} chunks",
        f"ceiling: {ceiling}, the best accuracy that any model could have",
    ]


def steps_of_gap(gap: int) -> str:
    """A gap in words."""
    if gap == 0:
        return "0, each row goes on where it stopped"
    number = abs(gap)
    return f"{gap}, a row {'skips' if gap > 0 else 'reads again'} {number} step{'s' * (number > 1)} at a time"


def _explain_horizon(found: Reach, *, is_carried: bool) -> str:
    share = (found.in_horizon_share or 0) / (found.reachable_share or 1)
    if share == 1:
        near = "it was read within the same chunk, where the gradient gets to"
        if found.reachable_share != 1:
            return near
        in_the_way = ", and whether what is handed over gets in its way" if is_carried else ""
        return f"{near}; whether the state has room for it{in_the_way}, training shows"
    if share == 0:
        return (
            "it was always read in an earlier chunk, where no gradient gets to: nothing shapes the state for it, and "
            "whether it is kept all the same, training shows"
        )
    return (
        f"{share:.1%} of these were read within the same chunk, where the gradient gets to, and what is learned from "
        "them can serve the others"
    )


class _Columns(NamedTuple):
    """All columns of all chunks, one after another, rows unravelled: 1-D arrays of one length.

    `stretch` numbers what one lane reads of one sequence between two resets, `visit` the part of it in one chunk,
    `life` what one lane reads between two resets of whatever sequence. `time` rises in the order of reading.
    """

    stretch: Integers
    visit: Integers
    life: Integers
    sequence: Integers
    step: Integers
    time: Integers
    is_read: NDArray[np.bool_]
    is_asked: NDArray[np.bool_]

    def where(self, mask: NDArray[np.bool_]) -> _Columns:
        return _Columns._make(field[mask] for field in self)


def _follow(chunks: Iterable[Any], stamps: Callable[[Any], Stamps]) -> tuple[_Columns, int]:
    num_resets: dict[int, int] = {}
    stretches: dict[tuple[int, int, int], int] = {}
    pieces: list[tuple[NDArray[Any], ...]] = []
    num_chunks, num_visits, clock = 0, 0, 0
    for chunk in chunks:
        step, sequence, starts, is_read, is_asked = _checked_stamps(stamps(chunk))
        num_lanes, num_steps = step.shape
        for lane in np.flatnonzero(starts).tolist():
            num_resets[lane] = num_resets.get(lane, 0) + 1
        lives = [num_resets.get(lane, 0) for lane in range(num_lanes)]
        keys = zip(range(num_lanes), lives, sequence.tolist(), strict=True)
        stretch = np.array([stretches.setdefault(key, len(stretches)) for key in keys])
        life = np.arange(num_lanes) + 2**32 * np.array(lives)
        per_lane = (stretch, num_visits + np.arange(num_lanes), life, sequence)
        time = np.tile(clock + np.arange(num_steps), num_lanes)
        spread = (np.repeat(values, num_steps) for values in per_lane)
        pieces.append((*spread, step.ravel(), time, is_read.ravel(), is_asked.ravel()))
        num_chunks, num_visits, clock = num_chunks + 1, num_visits + num_lanes, clock + num_steps
    if not pieces:
        raise RuleError("chunks", "$chunks must hold at least one chunk", "none")
    return _Columns._make(np.concatenate(field) for field in zip(*pieces, strict=True)), num_chunks


def _count_gaps(reads: _Columns) -> dict[int | str, int]:
    order = np.lexsort((reads.time, reads.life))
    life, sequence, step = reads.life[order], reads.sequence[order], reads.step[order]
    is_hand_over = life[1:] == life[:-1]
    is_same = sequence[1:] == sequence[:-1]
    values, counts = np.unique((step[1:] - step[:-1] - 1)[is_hand_over & is_same], return_counts=True)
    gaps: dict[int | str, int] = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if num_other := int((is_hand_over & ~is_same).sum()):
        gaps[OTHER] = num_other
    return gaps


class _FirstReads:
    """When each step was first read, within whatever is numbered by `part`."""

    NEVER = np.iinfo(np.int64).max

    def __init__(self, part: Integers, step: Integers, time: Integers) -> None:
        self._width = int(step.max(initial=0)) + 1
        key = part * self._width + step
        order = np.lexsort((time, key))
        self._keys, first = np.unique(key[order], return_index=True)
        self._times = time[order][first]

    def time_of(self, part: Integers, step: Integers) -> Integers:
        """The time of the first read; `NEVER` where there was none."""
        if not len(self._keys):
            return np.full(len(step), self.NEVER)
        key = part * self._width + step
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        is_found = (self._keys[place] == key) & (step >= 0) & (step < self._width)
        return np.where(is_found, self._times[place], self.NEVER)
