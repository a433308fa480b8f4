"""`watch`: samples that numpy has put in the order that a stateful model wants, for its batches or for others."""

import numpy as np
import pytest
import torch
from support.loops import Reader, train
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching.continuity import ends_of

STEPS, CHUNKS = 12, 30


def smooth(num_rows, num_values=2):
    """So many series, each beside a little noise."""
    steps = np.arange(num_rows * CHUNKS * STEPS)[:, None] / np.array([9, 14, 21])[:num_values]
    return np.sin(steps) + 0.05 * np.random.default_rng(1).normal(size=steps.shape)


def put_in_order(series, num_rows):
    """Sample k + num_rows goes on where sample k stopped."""
    rows = series.reshape(num_rows, CHUNKS, STEPS, -1)
    return np.concatenate([rows[:, chunk] for chunk in range(CHUNKS)])


def seen_of(samples, num_rows):
    loader = DataLoader(TensorDataset(torch.tensor(samples, dtype=torch.float32)), num_rows)
    with watch() as seen:
        train(Reader(size=samples.shape[-1], batch_first=True), (batch for (batch,) in loader))
    return [finding.kind for finding in seen.faults], [said for said in seen.unknown if "another order" in said]


@pytest.mark.parametrize("num_values", [1, 3])
@pytest.mark.parametrize("num_rows", [2, 5, 8])
def test_what_is_put_in_order_is_not_taken_for_consecutive(num_rows, num_values):
    kinds, unknown = seen_of(put_in_order(smooth(num_rows, num_values), num_rows), num_rows)
    assert kinds == []
    hand_overs = num_rows * (CHUNKS - 1)
    assert [said.split(" hand-overs")[0] for said in unknown] == [f"core: at {hand_overs} of {hand_overs}"]


@pytest.mark.parametrize(
    "samples",
    [
        smooth(5).reshape(-1, STEPS, 2),  # consecutive ones
        put_in_order(np.random.default_rng(2).normal(size=(5 * CHUNKS * STEPS, 2)), 5),  # nothing goes on anywhere
        put_in_order(np.ones((5 * CHUNKS * STEPS, 2)), 5),  # or everywhere
        put_in_order(smooth(3), 3),  # for batches of another number of rows
    ],
    ids=["consecutive", "noise", "constant", "other rows"],
)
def test_without_evidence_samples_are_consecutive(samples):
    assert seen_of(samples, 5) == (["rows-skip"], [])


def test_few_samples_and_numbers_of_words_are_no_evidence():
    samples = put_in_order(smooth(2), 2)
    assert ends_of(samples) is not None
    assert [ends_of(one) for one in (samples[:20], samples[:, :3], (9 * samples).astype(int), samples[:, 0, 0])] == [
        None
    ] * 4
    assert ends_of(torch.tensor(samples)).go_on(2)
    assert ends_of(samples[::-1]).go_on(-2) == ends_of(samples[::-1, ::-1]).go_on(2) is True


@pytest.mark.parametrize(("level", "goes_on"), [(0.1, True), (1.0, False)])
def test_where_samples_go_on_they_change_no_more_than_inside(level, goes_on):
    """The next but one is nearer than the next in both, and of the second it is still far away."""
    begins = np.where(np.arange(40) % 2, 20.0, 0.0) + np.arange(40) * (1.1 + level) / 2
    samples = begins[:, None] + 0.1 * np.arange(STEPS)
    assert ends_of(samples).go_on(2) == goes_on
