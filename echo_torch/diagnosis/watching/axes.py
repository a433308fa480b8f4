"""Does a layer take the rows of a batch for its steps, and are the steps that it reads in one row of one row?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.recorded import Call
from echo_torch.diagnosis.watching.standing import Standing, array_of

_FEW_STEPS = 4  # that are in no order by chance
_SIZES = 3  # of jumps, from which on they are many


def axes_in(own: Sequence[Call], seen: Calls) -> tuple[int, int]:
    """How many calls of a layer take rows for steps, of how many.

    Named where at least two calls, and most of them, show it in one way:

    - stacked windows of one series lie along what the layer takes for rows, and successive calls go on along what it
      takes for steps;
    - along the steps the places jump about in no order, while along the rows they always advance alike;
    - the last row of the output is taken alone, as one takes the last step;
    - rows with a state go on where the rows before them stopped, along the rows.
    """
    training = [call for call in own if call.trains and call.num_rows > 1]
    found = [call.standing for call in training if call.standing is not None and call.standing.has_grid]
    regular = [each for each in found if _is_series(each, seen)]
    counts = (
        (_stacked(regular, seen.places.layouts.pieces), len(found)),
        (sum(_jumps_about(each.of_all_steps(), seen) for each in found if each.places is not None), len(found)),
        (sum(call.takes_last_row for call in training), len(training)),
        (_across(training, seen), len(found)),
    )
    return max(((count, of) for count, of in counts if count > 1 and 2 * count > of), default=(0, len(found)))


def order_in(own: Sequence[Call], seen: Calls) -> tuple[int, int]:
    """How many calls of a layer read steps of several rows as one row, of how many."""
    mixed = [call.is_exchanged and not _is_in_order(call.standing, seen) for call in own if call.num_rows > 1]
    return sum(mixed), len(mixed)


def turns_in(own: Sequence[Call], seen: Calls) -> int:
    """How many rows take turns in one series, value by value, in all training calls of a layer; 0 if they do not.

    So do several series that were recorded together, and one that was laid out by a view where a transpose was due.
    """
    found = [call.standing for call in own if call.trains and call.num_rows > 1]
    numbers = {_turns(standing, seen) for standing in found}
    return numbers.pop() if len(found) > 1 and len(numbers) == 1 else 0


def _turns(standing: Standing | None, seen: Calls) -> int:
    if standing is None or standing.num_steps < 2 or not _is_series(standing, seen):
        return 0
    number, width = len(standing.first), standing.width
    is_beside = all(two - one == width for one, two in itertools.pairwise(standing.first))
    return number if is_beside and standing.stride == number * width else 0


def _is_series(standing: Standing, seen: Calls) -> bool:
    """Whether all is read from one array that has no axis but that of the steps, and its features."""
    arrays = {array_of(place) for place in (*standing.first, *standing.last)}
    axes = [each for size, each in seen.places.arrays.axes_of(min(arrays)) if size > 1 and each >= standing.width]
    return len(arrays) == 1 and axes == [standing.width]


def _stacked(found: Sequence[Standing], pieces: set[tuple[int, int, int]]) -> int:
    """Calls whose rows, as the layer takes them, lie across the windows that were stacked."""
    across = [each for each in found if pieces and _lies_across(each, pieces)]
    apart = [each for each in across if _step(each) >= len(each.first) * each.width]
    going_on = sum(
        two.first[0] - one.last[0] == _step(one) for one, two in itertools.pairwise(across) if _step(one) > 0
    )
    # Windows that overlap may also be the lags of one series, laid one above the other: these do not go on so.
    return len(across) if len(apart) == len(across) or 2 * going_on >= len(across) else 0


def _lies_across(standing: Standing, pieces: set[tuple[int, int, int]]) -> bool:
    grid = standing.of_all_steps()
    if set((grid[1:] - grid[:-1]).flatten().tolist()) != {standing.width}:
        return False
    lanes, steps = grid.shape
    columns = zip(grid[0].tolist(), grid[-1].tolist(), itertools.repeat(lanes), strict=False)
    rows = zip(standing.first, standing.last, itertools.repeat(steps), strict=False)
    return all(column in pieces for column in columns) and not any(row in pieces for row in rows)


def _step(standing: Standing) -> int:
    return standing.stride or 0


def _jumps_about(grid: Integers, seen: Calls) -> bool:
    """Whether the steps come in no order, in all rows alike, and reach over the rows beside."""
    apart = set((grid[1:] - grid[:-1]).flatten().tolist())
    if len(apart) != 1 or grid.shape[1] < _FEW_STEPS:
        return False
    jumps = (grid[0, 1:] - grid[0, :-1]).tolist()
    is_both_ways = len(set(jumps)) >= _SIZES and min(jumps) < 0 < max(jumps)
    is_far = int(grid[0].max() - grid[0].min()) > abs(apart.pop()) * (len(grid) - 1) > 0
    return is_both_ways and is_far and not _is_picked(grid[0], seen)


def _is_picked(row: Integers, seen: Calls) -> bool:
    """Whether steps were put in this order by a script, as records in that of their times."""
    gap = seen.places.selections.gap
    return all(gap(last, first) == 0 for last, first in itertools.pairwise(row.tolist()))


def _across(training: Sequence[Call], seen: Calls) -> int:
    """Calls with a state whose rows begin where the rows of the call before it end, side by side in one series."""
    count = 0
    for one, two in itertools.pairwise(training):
        before, now = one.standing, two.standing
        if before is None or now is None or not two.entering.calls or not _is_series(before, seen):
            continue
        lanes, width = len(before.first), before.width
        is_beside = list(before.first) == list(range(before.first[0], before.first[0] + lanes * width, width))
        is_far = before.stride is not None and before.stride >= lanes * width
        count += is_beside and is_far and now.first[0] == before.first[-1] + width
    return count


def _is_in_order(standing: Standing | None, seen: Calls) -> bool:
    """Whether each row reads neighbours in one row of their array: it was cut into windows, and nothing is mixed."""
    if standing is None or standing.stride != standing.width:
        return False
    for size, stride in seen.places.arrays.axes_of(array_of(standing.first[0])):
        if stride == standing.stride:
            ends = zip(standing.first, standing.last, strict=True)
            return all(first % ARRAY // stride // size == last % ARRAY // stride // size for first, last in ends)
    return True
