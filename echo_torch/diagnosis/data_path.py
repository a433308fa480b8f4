"""What a lane has read when it is asked: computed from chunks alone, before any training.

A stateful network can only echo a symbol that entered its own row of the batch, and can only learn to keep it if
a gradient gets from the question back to the step where it was read. Both are facts about the data path. They are
found here by following every lane through the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.stream import EchoStream, num_chunks_of
from echo_torch.diagnosis.following import Followed
from echo_torch.diagnosis.stamps import Stamps, checked_stamps, stamps_of_chunk
from echo_torch.errors import RuleError
from echo_torch.waiting import Progress, Waiting

OTHER = "other"  # the gap of a hand-over into another sequence
DEFAULT_MAX_LAG = 24
DEFAULT_MAX_CHUNKS = 200
_COLUMNS_PER_BLOCK = 2**14
_FEW_LAGS = 40  # that are shown one by one


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
    progress: Progress = False,
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
        progress: Whether a progress bar is drawn on standard error where it takes longer than two seconds; "line": a
            sentence says how long it takes.

    Returns:
        The gaps, reachable lags, shares and ceiling over the chunks looked at.

    Raises:
        RuleError: If a number is out of range, there are no chunks, or stamps have the wrong shape.
        RuleError: If stamps are not integers and booleans.
    """
    for name, number, low in (("lag", lag, 0), ("max_lag", max_lag, 0), ("max_chunks", max_chunks, 1)):
        if number < low:
            raise RuleError(name, f"${name} must be at least {low}", number)
    followed = Followed(lag, max_lag)
    total = _num_chunks(chunks, max_chunks)
    with Waiting("Following what each row reads", total, "chunks", progress=progress) as waiting:
        for block in _blocks(chunks, max_chunks, stamps):
            followed.add(*block)
            waiting.done = followed.num_chunks
        if not followed.num_chunks:
            raise RuleError("chunks", "$chunks must hold at least one chunk", "none")
        followed.close()
    gaps: dict[int | str, int] = dict(sorted(followed.gaps.items()))
    if followed.num_other:
        gaps[OTHER] = followed.num_other
    asked = followed.asked
    share = followed.read_before / asked if asked else None
    ceiling = None if share is None or vocabulary_size is None else share + (1 - share) / vocabulary_size
    jumps = [gap for gap in gaps if gap not in (0, OTHER)]
    return Reach(
        gap=0 if not jumps else int(jumps[0]) if len(jumps) == 1 else None,
        gaps=gaps,
        reachable_lags=np.flatnonzero(followed.is_reachable).tolist(),
        lag=lag,
        reachable_share=share,
        in_horizon_share=followed.read_in_chunk / asked if asked else None,
        ceiling=ceiling,
        targets=asked,
        chunks=followed.num_chunks,
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
    lags = _lags_in_words(found.reachable_lags)
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


def _lags_in_words(lags: list[int]) -> str:
    if len(lags) > _FEW_LAGS:
        return f"{', '.join(map(str, lags[: _FEW_LAGS // 2]))}, ..., {lags[-1]} ({len(lags):,} of them)"
    return ", ".join(map(str, lags)) or "none"


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


# Block after block: the fields of `Stamps`, with the chunks as one axis more.
_Blocks: TypeAlias = Iterator[tuple[NDArray[Any], ...]]


def _blocks(chunks: Iterable[Any], max_chunks: int, stamps: Callable[[Any], Stamps]) -> _Blocks:
    """The stamps of chunks of one shape together, because a call of numpy costs as much as a thousand columns."""
    if isinstance(chunks, EchoStream) and type(chunks).__iter__ is EchoStream.__iter__ and stamps is stamps_of_chunk:
        return _blocks_of_stream(chunks, max_chunks)
    return _stacked(checked_stamps(stamps(chunk)) for chunk in islice(chunks, max_chunks))


def _blocks_of_stream(stream: EchoStream, max_chunks: int) -> _Blocks:
    for block in stream.blocks():
        step, sequence, starts, is_read, is_asked = (np.asarray(field)[:max_chunks] for field in stamps_of_chunk(block))
        yield step, sequence, starts, is_read & (step >= 0), is_asked
        max_chunks -= len(step)
        if max_chunks <= 0:
            return


def _stacked(stamps: Iterable[tuple[NDArray[Any], ...]]) -> _Blocks:
    held: list[tuple[NDArray[Any], ...]] = []
    for fields in stamps:
        step = fields[0]
        if held and (step.shape != held[0][0].shape or len(held) * step.size >= _COLUMNS_PER_BLOCK):
            yield tuple(np.stack(field) for field in zip(*held, strict=True))
            held = []
        held.append(fields)
    if held:
        yield tuple(np.stack(field) for field in zip(*held, strict=True))


def _num_chunks(chunks: Iterable[Any], max_chunks: int) -> int | None:
    """How many chunks are looked at, where that can be known before."""
    found = num_chunks_of(chunks)
    if found is None:
        return max_chunks if isinstance(chunks, EchoStream) else None  # a stream without a number has no end
    return min(max_chunks, found)
