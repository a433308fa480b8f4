"""Padding that an answer hangs on: which steps are padded, and through which of them a gradient comes back.

What padded steps are is seen, never guessed. They were filled in by a function (`pad_sequence`, `pad`), left over of a
constant into which rows were written, are the `padding_idx` of an embedding, lie behind the lengths that came with the
batch, or hold a symbol that only ends rows, some of each batch. What counts is padding behind a row's last step.
"""

from __future__ import annotations

import functools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import BLANK, FILLED
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.regular import written_out

Hook = Callable[[Tensor, Callable[[Tensor | None], None]], None]

_AT_HAND = 8  # batches, or embeddings, whose padding is remembered
_FEW = 5  # rows that end in the same symbol by chance
_MOST_DOUBTS = 3  # calls after which nobody looks for a symbol that only ends rows


@dataclass
class _Lengths:
    """A part of all batches that may hold the lengths of the rows in another part.

    Attributes:
        fill: What stands behind them.
        num_rows: Rows that were seen to end so.
        is_refuted: Whether something else was seen behind them: then they are no lengths.
    """

    fill: Any = None
    num_rows: int = 0
    is_refuted: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether what lies behind them may be data."""
        return self.is_refuted or self.num_rows < _FEW

    def look(self, rows: Tensor, lengths: Tensor) -> NDArray[np.bool_] | None:
        """Which steps of rows (rows, steps, ...) lie behind their lengths; None where these are none."""
        ends, num_steps = lengths.tolist(), rows.shape[1]
        if not 0 < min(ends) <= max(ends) <= num_steps:
            self.is_refuted = True
            return None
        mask = np.arange(num_steps) >= np.array(ends)[:, None]
        values = rows.float() if rows.dtype is torch.bfloat16 else rows  # numpy has no such floats
        behind = values.numpy(force=True)[mask]
        if len(behind):
            self.fill = behind[0] if self.fill is None else self.fill
            self.is_refuted |= not (behind == self.fill).all()
            self.num_rows += int(mask[:, -1].sum())
        return None if self.is_refuted or not len(behind) else mask


@dataclass
class _Declared:
    """The symbols that embeddings have for their `padding_idx`: in a text that holds one they are data all the same.

    Attributes:
        num_between: Rows in which they stood between others.
        num_behind: Rows in which they stood behind others.
    """

    num_between: int = 0
    num_behind: int = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether they may be data: those that fill up stand behind others."""
        return self.num_between > self.num_behind

    def look(self, declared: NDArray[np.bool_], padded: NDArray[np.bool_]) -> None:
        """Look at where they stand.

        Args:
            declared: The steps (rows, steps) that hold them.
            padded: These, and steps that were filled in.
        """
        real, columns = ~padded, np.arange(padded.shape[1])
        declared, real = declared[real.any(1)], real[real.any(1)]
        first, last = real.argmax(1)[:, None], len(columns) - 1 - real[:, ::-1].argmax(1)[:, None]
        self.num_between += int((declared & (columns > first) & (columns < last)).any(1).sum())
        self.num_behind += int((declared & (columns > last)).any(1).sum())


@dataclass
class Padded:
    """The padding that one call reads.

    Attributes:
        runs: Of each row, how many steps at its end are padded.
        num_steps: Steps of a row.
        symbol: What fills the rows, where that is known by nothing else; None: the steps are padding for certain.
        is_to_longest: Whether padding is so called only where some row of each batch has none.
        claim: What says so, where that may be wrong.
        inside: Symbols that stand in front of others.
        read: The rows in which a gradient came back through padded steps.
        is_filled: Whether the layer has not read it, and it was filled in behind what the layer had given.
        own: Then the rows in which a gradient came back through their own steps: they are read for themselves.
    """

    runs: list[int]
    num_steps: int
    symbol: int | None = None
    is_to_longest: bool = False
    claim: _Lengths | _Declared | None = None
    inside: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)
    is_filled: bool = False
    own: set[int] = field(default_factory=set)


class _Behind:
    """The steps behind the lengths that came with a batch; their places are found where somebody asks.

    Args:
        claim: What says that these are lengths.
        rows: The places of all steps.
        axis: Which of their axes counts the rows.
        mask: The steps (rows, steps) that lie behind.
    """

    def __init__(self, claim: _Lengths, rows: Tensor, axis: int, mask: NDArray[np.bool_]) -> None:
        self.claim, self._rows, self._axis, self._mask = claim, rows, axis, mask

    @functools.cached_property
    def places(self) -> Tensor:
        """The places of these steps, one after another."""
        return torch.from_numpy(np.moveaxis(written_out(self._rows).numpy(), self._axis, 0)[self._mask]).flatten()


class _Symbols:
    """What an embedding has read; put into the order of the places where somebody asks."""

    def __init__(self, places: Tensor, words: Tensor) -> None:
        self._places, self._words = places, words

    @functools.cached_property
    def in_order(self) -> tuple[Tensor, Tensor]:
        """The places, sorted, and the symbol of each."""
        flat, order = written_out(self._places).flatten().sort()
        return flat, self._words.flatten()[order]


class Padding:
    """Knows which places are padding, and listens to the calls that read them.

    Args:
        places: Where values stand.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._padded: deque[Tensor] = deque(maxlen=_AT_HAND)
        self._declared = _Declared()
        self._symbols: deque[_Symbols] = deque(maxlen=_AT_HAND)
        self._lengths: defaultdict[tuple[int, ...], _Lengths] = defaultdict(_Lengths)
        self._behind: deque[_Behind] = deque(maxlen=2)
        self._together: Tensor | None = None  # all that are padded
        self._inside: set[int] = set()  # symbols that stand in front of others
        self._num_doubts = 0  # calls without a break whose rows end in data
        places.on_lookup = self._note_lookup

    def note_batch(self, batch: Any) -> None:
        """A batch has come: rows that hold one value alone behind the lengths that came with them are padded."""
        leaves = [leaf for leaf in _leaves(batch) if isinstance(leaf, Tensor) and not leaf.requires_grad]
        for one, lengths in enumerate(leaves):
            if lengths.ndim == 1 and len(lengths) > 1 and _holds_integers(lengths):
                for other, rows in enumerate(leaves):
                    for axis in (0, 1) if rows.ndim > 1 else ():
                        if rows.shape[axis] == len(lengths):
                            self._note_lengths(self._lengths[len(leaves), one, other, axis], rows, lengths, axis)

    def _note_lengths(self, claim: _Lengths, rows: Tensor, lengths: Tensor, axis: int) -> None:
        if claim.is_refuted:
            return
        mask = claim.look(rows.transpose(0, 1) if axis else rows, lengths)
        places = None if mask is None else self._places.where(rows)
        if mask is not None and places is not None:
            self._behind.append(_Behind(claim, places, axis, mask))

    @property
    def knows_any(self) -> bool:
        """Whether places are known that may be padding, beside those that were filled in."""
        return bool(self._padded or self._behind or (self._symbols and self._num_doubts < _MOST_DOUBTS))

    def listen(self, layer: nn.Module, read: Any, steps: Tensor, left: Sequence[Any], hook: Hook) -> Padded | None:
        """Look at the padding that a call reads, and notice gradients that come back through it.

        Args:
            layer: The recurrent layer.
            read: Its input.
            steps: The place of each step (rows, steps), as of `steps_of`.
            left: The tensors of its state, and after them its features; None where there are none.
            hook: Registers who notices a gradient of a tensor.
        """
        if isinstance(read, PackedSequence):  # padding stays out of it
            return None
        found = self._look(steps)
        if found is None:
            return None
        if any(run > 0 and (run < found.num_steps or found.num_steps == 1) for run in found.runs):
            columns = np.arange(found.num_steps)
            is_padded = columns >= found.num_steps - np.array(found.runs)[:, None]
            for number, tensor in enumerate(left):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    is_features = number == len(left) - 1
                    hook(tensor, _noticing(layer, found, is_padded, is_features=is_features))
        return found

    def _look(self, steps: Tensor) -> Padded | None:
        filled = steps.numpy() == FILLED
        declared = torch.isin(steps, self._all_padded()).numpy() if self._padded else None
        if declared is not None and declared.any():
            padded = declared | filled
            self._declared.look(declared, padded)
            if not self._declared.is_doubtful:
                return _in_rows(padded, claim=self._declared)
        if filled.any():
            return _in_rows(filled)
        for each in reversed(self._behind):
            if not each.claim.is_refuted and bool((behind := torch.isin(steps, each.places)).any()):
                return _in_rows(behind.numpy(), claim=each.claim)
        if bool((blank := steps == BLANK).any()):
            return _in_rows(blank.numpy(), is_to_longest=True)
        symbols = self._symbols_at(steps) if steps.shape[1] > 1 and self._num_doubts < _MOST_DOUBTS else None
        return None if symbols is None else self._end_of_rows(symbols)

    def _end_of_rows(self, symbols: Tensor) -> Padded:
        """What may be padding because nothing stands behind it."""
        changes = symbols[:, 1:] != symbols[:, :-1]
        inside = set(symbols[:, :-1][changes].tolist())
        self._inside |= inside
        runs = torch.from_numpy(_runs((symbols == symbols[:, -1:]).numpy()))
        ends = symbols[runs.argsort(descending=True), -1].tolist()
        symbol = next((end for end in ends if end not in self._inside), ends[0])
        found = _in_rows((symbols == symbol).numpy(), symbol=symbol, is_to_longest=True, inside=inside)
        is_doubtful = symbol in self._inside or min(found.runs) > 0 or max(found.runs) < 2
        self._num_doubts = self._num_doubts + 1 if is_doubtful else 0
        return found

    def _note(self, places: Integers) -> None:
        places = places[places != FILLED]  # what was filled in is padding anyway
        if places.size:
            self._padded.append(torch.from_numpy(places))
            self._together = None

    def _all_padded(self) -> Tensor:
        if self._together is None:
            self._together = torch.cat(list(self._padded))
        return self._together

    def _note_lookup(self, words: Tensor, places: Tensor, padding_idx: int | None) -> None:
        if padding_idx is not None:
            padded = written_out(places).numpy()[words.detach().cpu().numpy() == padding_idx]
            self._note(padded)
        if words.ndim == 2 and min(words.shape) > 1 and self._num_doubts < _MOST_DOUBTS:
            self._symbols.append(_Symbols(places, words.detach().cpu().clone()))

    def _symbols_at(self, steps: Tensor) -> Tensor | None:
        for each in reversed(self._symbols):
            places, symbols = each.in_order
            found = torch.searchsorted(places, steps.contiguous()).clamp_(max=len(places) - 1)
            if bool((places[found] == steps).all()):
                return symbols[found]
        return None


def padding_read(own: Sequence[Any]) -> tuple[int, int]:
    """In how many padded rows an answer hangs on padded steps, and how many padded rows there are.

    Args:
        own: The calls of a layer, with `padded`, `root` and `reached`.
    """
    found = [(call, call.padded) for call in own if call.padded is not None and call.padded.num_steps > 1]
    whole = [(padded, call.reached is not None) for call, padded in found if not _is_doubtful(padded, found)]
    stepped = [(None, padded) for padded in _stepped(own)]  # all of them, before any is judged
    whole += [(padded, True) for _, padded in stepped if not _is_doubtful(padded, stepped)]
    lengths = {padded.num_steps - run for padded, _ in whole for run in padded.runs}
    if len({run for padded, _ in whole for run in padded.runs}) < 2 or not lengths:
        return 0, 0  # what is the same in all rows fills nothing up
    rows = [(padded, row) for padded, has_gradient in whole if has_gradient for row in _rows(padded)]
    return sum(row in padded.read - padded.own for padded, row in rows), len(rows)


def _is_doubtful(padded: Padded, found: Sequence[tuple[Any, Padded]]) -> bool:
    """Whether it may be data: a symbol that also stands inside rows, or that ends all rows of a batch, or few."""
    if padded.claim is not None:
        return padded.claim.is_doubtful
    if not padded.is_to_longest:
        return False
    alike = [other for _, other in found if other.is_to_longest and other.symbol == padded.symbol]
    if any(min(other.runs) > 0 for other in alike):
        return True
    if padded.symbol is None:
        return False
    rows = [run for other in alike for run in other.runs if run]
    is_inside = any(padded.symbol in other.inside for _, other in found)
    return is_inside or len(rows) < _FEW or len(set(rows)) < 2


def _rows(padded: Padded) -> list[int]:
    return [row for row, run in enumerate(padded.runs) if 0 < run < padded.num_steps]


def _stepped(own: Sequence[Any]) -> Iterable[Padded]:
    """The calls that read one step at a time, those inside a call of the whole model as one of as many steps."""
    calls: dict[int, list[Any]] = {}
    for call in own:
        if call.num_steps == 1:
            calls.setdefault(call.root, []).append(call)
    declared = _Declared()
    for some in calls.values():
        if len(some) > 1 and any(call.padded is not None for call in some):
            yield _joined(some, declared)


def _joined(calls: Sequence[Any], declared: _Declared) -> Padded:
    num_rows = min(call.num_rows for call in calls)
    whole = Padded([0] * num_rows, len(calls))
    for row in range(num_rows):
        for call in reversed(calls):
            if call.padded is None or not call.padded.runs[row]:
                break
            whole.runs[row] += 1
            whole.claim, whole.is_to_longest = call.padded.claim, call.padded.is_to_longest
            whole.read |= {row} & call.padded.read
    if any(call.padded is not None and isinstance(call.padded.claim, _Declared) for call in calls):
        mask = [[call.padded is not None and call.padded.runs[row] > 0 for call in calls] for row in range(num_rows)]
        declared.look(np.array(mask), np.array(mask))
    if isinstance(whole.claim, _Declared):
        whole.claim = declared
    return whole


def _in_rows(mask: NDArray[np.bool_], **what: Any) -> Padded:
    return Padded(_runs(mask).tolist(), mask.shape[1], **what)


def _runs(mask: NDArray[np.bool_]) -> Integers:
    """Of each row (rows, steps), how many values at its end are true."""
    backwards = mask[:, ::-1]
    if not backwards.size:
        return np.zeros(len(mask), int)
    runs: Integers = np.where(backwards.all(1), backwards.shape[1], backwards.argmin(1))
    return runs


def _noticing(
    layer: nn.Module, padded: Padded, mask: NDArray[np.bool_], *, is_features: bool
) -> Callable[[Tensor | None], None]:
    """Notes the rows whose padded steps, or state after them, a gradient comes back to."""

    def notice(gradient: Tensor | None) -> None:
        if gradient is None:  # so autograd calls hooks where a second backward pass fails
            return
        is_read = (gradient.abs().amax(-1) != 0).cpu().numpy()  # several times as fast as any(), and NaN stays NaN
        if is_read.ndim == 2 and not is_features:  # (layers, rows): only what reads forwards ends in the padding
            is_read = np.logical_or.reduce(is_read[:: 1 + bool(getattr(layer, "bidirectional", False))])
        if is_read.ndim == 2:
            is_read = is_read if getattr(layer, "batch_first", False) else is_read.T
            is_read = np.logical_or.reduce(is_read & mask, axis=1)
        padded.read.update((is_read & mask[:, -1]).nonzero()[0].tolist())

    return notice


def _holds_integers(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _leaves(batch: Any) -> Iterable[Any]:
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, (tuple, list)):
        if len(batch) > 1 and all(type(part) is int for part in batch):
            yield torch.tensor(batch)
            return
        for part in batch:
            yield from _leaves(part)
    else:
        yield batch
