import itertools

import pytest
import torch

from echo_torch.data import Chunk, EchoStream, LaneLayout, OwnSeries, RandomSymbols, SeriesLayout, collate_chunk


def make_stream():
    series = OwnSeries([[0.5, 0.75, 1.0], [2.5, 2.0]])
    return EchoStream(SeriesLayout(series.lengths, 2, 2), series, targets=lambda k, step: series(k, step + 1))


def test_a_chunk_as_a_dict():
    chunk = next(iter(EchoStream(LaneLayout(3, 2, 1), RandomSymbols(10), start=7)))
    found = chunk.to_dict()
    assert list(found) == list(Chunk._fields)
    assert all(found[name] is getattr(chunk, name) for name in Chunk._fields if name != "index")
    assert torch.equal(found["index"], torch.tensor([7, 7, 7]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_collates(num_workers):
    """As a trainer makes it that knows no chunks: batches of one example, collated."""
    loader = torch.utils.data.DataLoader(make_stream(), batch_size=1, collate_fn=collate_chunk, num_workers=num_workers)
    for number, (batch, chunk) in enumerate(itertools.islice(zip(loader, make_stream(), strict=True), 5)):
        assert batch.keys() == set(Chunk._fields)
        assert all(isinstance(value, torch.Tensor) and len(value) == 2 for value in batch.values())
        assert batch["index"].tolist() == [number] * 2
        assert torch.equal(batch["symbols"], chunk.symbols)
        assert torch.equal(batch["step"], chunk.step)


@pytest.mark.parametrize("number", [0, 2])
def test_a_chunk_is_a_batch_already(number):
    chunks = list(itertools.islice(make_stream(), number))
    with pytest.raises(
        ValueError, match=f"`chunks` must hold exactly one chunk.*Got {number}; set the batch size to 1"
    ):
        collate_chunk(chunks)
