"""Which arrays last for longer than a batch, and which are gone when the next has come."""

import pytest

from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.lasting import LastingArrays


class Alive:
    """Says of arrays whether they are still there, as `Arrays` does."""

    def __init__(self):
        self.gone = set()

    def is_alive(self, array):
        return array not in self.gone


def noted(*reads, gone=()):
    """What lasts when (root, places of array 1, of array 2) were read; `gone` says before which reading one ends."""
    arrays = Alive()
    lasting = LastingArrays(arrays)
    for number, (root, *places) in enumerate(reads):
        arrays.gone |= {array for array, note in gone if note == number}
        lasting.note([ARRAY * array + place for array, each in enumerate(places, 1) for place in each], root)
    return lasting


def test_an_array_lasts_if_other_places_are_read_when_a_batch_is_gone():
    assert noted((1, [0, 9]), (4, [1, 8])).numbers == {1}
    assert noted((1, [0, 9]), (4, [0, 9])).numbers == set()
    assert noted((1, [0, 9]), (4, [0])).numbers == set()  # a part of the same


def test_chunks_of_a_batch_come_one_after_another():
    assert noted((1, [0]), (2, [5]), (3, [9])).numbers == set()
    assert noted((1, [0]), (2, [5]), (4, [9])).numbers == {1}


@pytest.mark.parametrize(("root", "numbers"), [(5, set()), (6, {1})])
def test_an_array_lasts_that_is_there_a_while_after_its_chunks(root, numbers):
    reads = (1, [0]), (2, [5]), (root, [], [0])
    assert noted(*reads).numbers == numbers
    assert noted(*reads, gone=[(1, 2)]).numbers == set()


def test_what_is_gone_is_forgotten():
    lasting = noted((1, [0]), (2, [5]), (6, [], [0]), gone=[(1, 2)])
    assert lasting._read.keys() == {2}


def test_a_copy_of_what_is_gone_is_read_as_something_new():
    reads = (1, [0]), (2, [], [0]), (3, [5]), (5, [9])
    assert noted(*reads).numbers == {1}
    assert noted(*reads[:3], gone=[(1, 1)]).numbers == set()


def test_many_steps_of_one_call_are_one_reading():
    lasting = noted(*[(1, [step]) for step in range(100)])
    assert len(lasting._old) == 1


def test_an_array_has_met_those_that_were_read_while_it_was_there():
    lasting = noted((1, [0]), (4, [5]), (5, [], [0]))
    assert lasting.met(1, 2)
    assert not noted((1, [0]), (4, [5]), (5, [], [0]), gone=[(1, 2)]).met(1, 2)


def test_rows_in_even_strides_may_stand_in_several_arrays():
    even, one_by_one = LastingArrays(Alive()), LastingArrays(Alive())
    for root, begin in ((1, 0), (4, 7)):
        even.note(range(ARRAY + begin, 5 * ARRAY, ARRAY), root)
        one_by_one.note([ARRAY * array + begin for array in range(1, 5)], root)
    assert even.numbers == one_by_one.numbers == {1, 2, 3, 4}
