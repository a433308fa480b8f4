"""What `watch` calls a layer, also where several bear one name."""

import torch
from support.loops import Reader, train
from torch import nn

from echo_torch import watch

SERIES = torch.randn(60, 4, 3, generator=torch.Generator().manual_seed(1))


class Encoder(Reader):
    """Another class, whose layer has the same name."""


def read(*models):
    """Each model reads the series, and each but the first skips a part of it."""
    with watch() as seen:
        for number, model in enumerate(models):
            train(model, [SERIES[begin : begin + 5] for begin in range(0, 55, 5 + 3 * (number > 0))])
    return seen


def test_layers_of_two_models_are_told_apart():
    for models, names in (
        ((Reader(), Encoder()), ["core of Reader", "core of Encoder"]),
        ((Reader(), Reader()), ["core of the first Reader", "core of the second Reader"]),
    ):
        seen = read(*models)
        assert seen.layers == names
        assert [line.split(" is called ")[0] for line in seen.lines()[:2]] == names
        assert [(finding.kind, finding.module) for finding in seen.faults] == [("rows-skip", names[1])]
        assert [seen.reach(name).gap for name in names] == [0, 3]


def test_a_name_that_one_alone_bears_is_left_as_it_is():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.lower, self.upper = Reader(), Reader()

        def forward(self, chunk, state=None):
            self.lower(chunk)
            return self.upper(chunk, state)

    assert read(Pair()).layers == ["lower.core", "upper.core"]


def test_layers_that_are_no_part_of_a_model_are_numbered():
    with watch() as seen:
        for layer in [nn.GRU(3, 5), nn.LSTM(3, 5), *(nn.GRU(3, 5) for _ in range(10))]:
            layer(SERIES)
    assert seen.layers[:3] == ["the first GRU", "LSTM", "the second GRU"]
    assert seen.layers[-2:] == ["the tenth GRU", "GRU no. 11"]
