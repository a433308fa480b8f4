"""Where the values of a tensor stand in the arrays that they come from, followed through whatever a script does.

A tensor that nobody has copied tells it by its storage: which one, and at which offset. A copy is followed: what is
done to values is done to their places too, as long as it only moves them, or treats each alone, or each vector.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from echo_torch.diagnosis.watching.foreign import Strangers
from echo_torch.diagnosis.watching.layouts import Layouts

ARRAY = 2**40  # a place is the number of its array times this, and the position in it
_MOST_VALUES = 2**20  # of a tensor whose places are followed

# The names of functions that move values about ...
_MOVES = {
    "__get__", "__getitem__", "_pack_padded_sequence", "cat", "chunk", "concat", "expand", "expand_as", "flatten",
    "flip", "gather", "hstack", "index_select", "movedim", "moveaxis", "narrow", "pad_sequence", "permute", "repeat",
    "repeat_interleave", "reshape", "reshape_as", "roll", "select", "split", "split_with_sizes", "squeeze", "stack",
    "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose", "unbind", "unflatten", "unfold", "unsqueeze",
    "view", "view_as", "vstack",
}  # fmt: skip
# ... that make a vector of each value, ...
_LOOKUPS = {"embedding", "one_hot"}
# ... and that make a vector of each vector.
_VECTORS = {
    "__matmul__", "bmm", "gru", "gru_cell", "layer_norm", "linear", "lstm", "lstm_cell", "matmul", "mm", "rms_norm",
    "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell", "softmax",
}  # fmt: skip


class Places(TorchFunctionMode):
    """Follows where values stand, while it is the mode of torch's functions.

    Attributes:
        is_paused: Whether nothing is followed: while an optimiser works, and when all has been watched.
        layouts: What is done to axes.
        strangers: What states are that no call has left.
        use: Is told what each function is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = False
        self.layouts = Layouts()
        self.strangers = Strangers()
        self.use: Callable[[Iterable[Any]], None] = lambda given: None
        self._is_open = False
        self._places: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._arrays: dict[int, int] = {}  # their numbers, by the addresses of their storages
        self._storages: list[StorageWeakRef] = []
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._made: set[int] = set()  # the ids of tensors that the model has made of what it read

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and follow what it does to places."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.is_paused:
            return result
        try:
            with torch.no_grad():
                self.use(args)
                self._follow(func, args, kwargs, result)
        except Exception:  # whatever somebody's function does: then its places are unknown
            return result
        return result

    def begin(self) -> None:
        """Follow from now on."""
        self.__enter__()  # type: ignore[no-untyped-call]
        self._is_open = True

    def end(self, *, is_forced: bool = True) -> None:
        """Follow no more.

        Args:
            is_forced: If not, and another mode was begun meanwhile, this one only rests until that has ended.
        """
        self.is_paused = True
        is_uppermost = _get_current_function_mode() is self  # type: ignore[no-untyped-call]
        if self._is_open and (is_forced or is_uppermost):
            self._is_open = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._places.clear()

    def of(self, tensor: Tensor) -> Tensor | None:
        """The place of each value, int64 of the tensor's shape; None where they are unknown."""
        found = self._places.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        is_made = tensor.requires_grad or tensor.grad_fn is not None
        return None if is_made or tensor.numel() > _MOST_VALUES else self._by_storage(tensor)

    def forget_what_was_made(self) -> None:
        """The model has returned: what it gives is read by it again as something new."""
        for key in self._made:
            self._places.pop(key, None)
        self._made.clear()

    def is_alive(self, array: int) -> bool:
        """Whether anybody still holds an array."""
        return not self._storages[array - 1].expired()  # type: ignore[no-untyped-call]

    def axes_of(self, array: int) -> list[tuple[int, int]]:
        """Of each axis of an array its size and its stride, the outermost first; none if it was not seen whole."""
        axes, width = [], 1
        for size in reversed(self._shapes.get(array, ())):
            axes.append((size, width))
            width *= size
        return axes[::-1]

    def _by_storage(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        pointer = storage.data_ptr()
        if pointer not in self._arrays or not self.is_alive(self._arrays[pointer]):
            self._storages.append(StorageWeakRef(storage))  # type: ignore[no-untyped-call]
            self._arrays[pointer] = len(self._storages)
        array = self._arrays[pointer]
        if array not in self._shapes and tensor.is_contiguous() and tensor.nbytes == storage.nbytes():
            self._shapes[array] = tuple(tensor.shape)
        places = torch.tensor(array * ARRAY + int(tensor.storage_offset()))
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            along = [-1 if number == axis else 1 for number in range(tensor.ndim)]
            places = places + (torch.arange(size) * stride).view(along)
        return places.expand(tensor.shape)

    def _keep(self, result: Any, places: Any) -> None:
        if isinstance(result, (tuple, list)):
            for one, other in zip(result, places, strict=True):
                self._keep(one, other)
        elif isinstance(result, Tensor) and places.shape == result.shape and result.numel() <= _MOST_VALUES:
            key = id(result)
            self._places[key] = weakref.ref(result, lambda _: self._places.pop(key, None)), places

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        name = getattr(func, "__name__", "")
        self.strangers.draw(name, args, result)
        if name in _MOVES:
            if isinstance(result, (Tensor, tuple, list)):
                self.layouts.move(name, args, result)
                swapped, swapped_by_name = self._swapped(args, kwargs)
                places = func(*swapped, **swapped_by_name)
                self._keep(result, places)
                self.layouts.stack(name, args, kwargs, result, places)
                if any(id(tensor) in self._made for tensor in _tensors_in([*args, *kwargs.values()])):
                    self._made.update(map(id, _tensors_in([result])))
        elif name in _LOOKUPS:
            places = self._needed(args[0] if args else kwargs["input"])
            self._keep(result, places.unsqueeze(-1).expand(result.shape))
            self.layouts.treat([*args, *kwargs.values()], result)
        else:
            output = result[0] if name in _VECTORS and isinstance(result, tuple) else result
            if isinstance(output, Tensor) and output.ndim:
                self.layouts.treat([*args, *kwargs.values()], output)
                self._follow_values(name, [*args, *kwargs.values()], output)

    def _follow_values(self, name: str, given: Iterable[Any], result: Tensor) -> None:
        """Of several tensors the first counts whose places are known: a mask or a weight is not what is read."""
        for tensor in given:
            if isinstance(tensor, Tensor) and (places := self.of(tensor)) is not None:
                if name in _VECTORS and tensor.shape[:-1] == result.shape[:-1]:
                    self._keep(result, places[..., :1].expand(result.shape))
                elif name not in _VECTORS and tensor.shape == result.shape:
                    self._keep(result, places)
                else:
                    return
                if name in _VECTORS or id(tensor) in self._made:
                    self._made.add(id(result))
                return

    def _needed(self, tensor: Tensor) -> Tensor:
        places = self.of(tensor)
        if places is None:
            raise LookupError
        return places

    def _swapped(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments with places in the place of the first tensor, or list of them; indices stay."""
        is_done = False

        def swap(part: Any) -> Any:
            nonlocal is_done
            is_list = isinstance(part, (tuple, list)) and part and all(isinstance(one, Tensor) for one in part)
            if is_done or not (is_list or isinstance(part, Tensor)):
                return part
            is_done = True
            return [self._needed(one) for one in part] if is_list else self._needed(part)

        return [swap(part) for part in args], {name: swap(part) for name, part in kwargs.items()}


def _tensors_in(given: Iterable[Any]) -> Iterator[Tensor]:
    for part in given:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from _tensors_in(part)
