"""Which calls evaluate: what they read and leave is none of the training's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.recorded import Call, by_root
from echo_torch.diagnosis.watching.sources import arrays_in, as_array
from echo_torch.diagnosis.watching.standing import Standing

_NOTHING = -1  # the place of a row that a call does not have


def evaluating(own: Sequence[Call]) -> set[int]:
    """The numbers of a layer's calls that evaluate.

    Those in evaluation mode do. Without gradients a state may be warmed up too, before a training goes on with it: then
    what is read is of arrays that a training reads.

    Args:
        own: The calls of the layer.
    """
    if all(call.trains for call in own):
        return set()
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
    return {root: _walked([call.standing for call in calls if call.standing]) for root, calls in by_root(own).items()}


def _walked(standings: Sequence[Standing]) -> set[int]:
    """The arrays in which any row stands at two places."""
    ends = [as_array(places) for standing in standings for places in (standing.first, standing.last)]
    places = np.full((max(map(len, ends), default=0), len(ends)), _NOTHING)
    for column, each in enumerate(ends):
        places[: len(each), column] = each
    places.sort(axis=1)
    is_walked = (places[:, 1:] != places[:, :-1]) & (places[:, 1:] // ARRAY == places[:, :-1] // ARRAY)
    return arrays_in(places[:, 1:][is_walked])
