"""The weights of several networks of one shape as one array of numbers, a row for each network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from echo_torch.models.encoding import to_digits
from echo_torch.models.networks import EchoLSTM

_ALIGNMENT = 16  # numbers; each part begins where the processor's widest registers do


class FlatWeights:
    """Something that each weight of some `EchoLSTM` has a number of: its value, its gradient, a moment.

        members   one row each                                                            a number for
        0         | input rows of layer 0 | a row of zeros | weight_hh_l0 | ... | head.bias |  each weight
        1         | ...

    An optimiser that treats all weights alike makes one call for all of them. The input weights of layer 0 are stored
    transposed, so that what one symbol adds to the gates is one row, and a row of zeros follows them: what is read
    where nothing is read.

    Args:
        models: The networks, of one shape, on one device and of one type.

    Attributes:
        values: float (members, numbers). The padding between the parts is zero.
        rows: The same memory, float (members * rows of a member, 4 * hidden_size): row
            `member * rows_per_member + symbol` is what a symbol adds to the gates of layer 0.
        rows_per_member: How many rows a member has.
        trained: The names of the parameters that are trained.
    """

    def __init__(self, models: Sequence[EchoLSTM]) -> None:
        model = models[0]
        width = 4 * model.lstm.hidden_size
        self.num_members = len(models)
        self.encoding = model.encoding
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._offsets: dict[str, int] = {}
        end = 0
        for name, shape in self._shapes.items():
            self._offsets[name] = end
            numbers = shape.numel() + (width if name == _INPUT_ROWS else 0)
            end += -(-numbers // _ALIGNMENT) * _ALIGNMENT
        self.rows_per_member = -(-end // width)
        while self.rows_per_member * width % _ALIGNMENT:
            self.rows_per_member += 1
        self.values = model.head.weight.new_zeros(self.num_members, self.rows_per_member * width)

    def like(self) -> FlatWeights:
        """Zeros for the same weights."""
        other: FlatWeights = FlatWeights.__new__(FlatWeights)
        other.__dict__.update(self.__dict__, values=torch.zeros_like(self.values))
        return other

    def of_member(self, member: int) -> FlatWeights:
        """A copy of what one network has, as if it were alone."""
        other: FlatWeights = FlatWeights.__new__(FlatWeights)
        other.__dict__.update(self.__dict__, num_members=1, values=self.values[member : member + 1].clone())
        return other

    @property
    def rows(self) -> Tensor:
        """The same memory in rows as wide as the gates."""
        return self.values.view(self.num_members * self.rows_per_member, -1)

    @property
    def zero_rows(self) -> Tensor:
        """What is read where nothing is read, (members, 4 * hidden_size)."""
        width, number = self._shapes[_INPUT_ROWS]
        return self.values[:, number * width : (number + 1) * width]

    def rows_of(self, symbols: Tensor) -> Tensor:
        """Which rows a symbol's digits are.

        Args:
            symbols: int64 (..., members, lanes), checked; -1 where nothing is read.

        Returns:
            int64 (..., members, lanes, digits), numbers of `rows`.
        """
        encoding = self.encoding
        base = encoding.base or encoding.vocabulary_size
        digits = to_digits(symbols, base, encoding.num_digits, where_negative=-1)
        begins = base * torch.arange(encoding.num_digits, device=symbols.device)
        rows = torch.where(digits < 0, encoding.size, digits + begins)
        members = self.rows_per_member * torch.arange(self.num_members, device=symbols.device)
        return rows + members[:, None, None]

    def __getitem__(self, name: str) -> Tensor:
        """The part of one parameter: (members, *its shape), a view."""
        shape, offset = self._shapes[name], self._offsets[name]
        part = self.values[:, offset : offset + shape.numel()]
        if name == _INPUT_ROWS:
            return part.view(self.num_members, shape[1], shape[0]).transpose(1, 2)
        return part.view(self.num_members, *shape)

    def take_over(self, models: Sequence[EchoLSTM]) -> None:
        """Copy the models' weights, and make their parameters views of the copy from now on."""
        with torch.no_grad():
            for name in self._shapes:
                for view, model in zip(self[name], models, strict=True):
                    parameter = model.get_parameter(name)
                    view.copy_(parameter)
                    parameter.data = view


def give_back(model: EchoLSTM) -> None:
    """Give each parameter that is a view memory of its own again, as cuDNN must have them; the values stay."""
    for parameter in model.parameters():
        parameter.data = parameter.detach().clone(memory_format=torch.contiguous_format)
    model.lstm.flatten_parameters()


_INPUT_ROWS = "lstm.weight_ih_l0"  # the first parameter of an EchoLSTM
