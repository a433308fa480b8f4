"""Which calls evaluate: what they read and leave is none of the training's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from echo_torch.diagnosis.watching.recorded import Call
from echo_torch.diagnosis.watching.standing import array_of


def evaluating(own: Sequence[Call]) -> set[int]:
    """The numbers of a layer's calls that evaluate.

    Those in evaluation mode do. Without gradients a state may be warmed up too, before a training goes on with it: then
    what is read is of arrays that a training reads.

    Args:
        own: The calls of the layer.
    """
    arrays = _arrays_in(own)
    trained = set().union(*(arrays[call.root] for call in own if call.trains))
    return {
        call.number
        for call in own
        if not call.is_training or (not call.trains and _is_kept_apart(arrays[call.root], trained))
    }


def _is_kept_apart(arrays: set[int], trained: set[int]) -> bool:
    """Whether something reads arrays that no training reads, as far as it is known what is read."""
    return bool(arrays and trained) and arrays.isdisjoint(trained)


def _arrays_in(own: Sequence[Call]) -> dict[int, set[int]]:
    """Of each call of the whole model the arrays through which its rows go; a step alone tells of none."""
    places: dict[int, set[tuple[int, int]]] = {}  # each with its row
    for call in own:
        found = places.setdefault(call.root, set())
        if call.standing is not None:
            found.update(enumerate(call.standing.first))
            found.update(enumerate(call.standing.last))
    return {root: _walked(found) for root, found in places.items()}


def _walked(places: set[tuple[int, int]]) -> set[int]:
    numbers = Counter((row, array_of(place)) for row, place in places)
    return {array for (_, array), number in numbers.items() if number > 1}
