"""Where the values of a tensor stand in the arrays that they come from, followed through whatever a script does.

A tensor that nobody has copied tells it by its storage: which one, and at which offset. A copy is followed: what is
done to values is done to their places too, as long as it only moves them, or treats each alone, or each vector.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import DisableTorchFunction, _len_torch_function_stack
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching.arrays import ARRAY, FILLED, MOST_VALUES, Arrays
from echo_torch.diagnosis.watching.compiled import is_recorded
from echo_torch.diagnosis.watching.foreign import Strangers
from echo_torch.diagnosis.watching.layouts import Layouts

# The names of functions that move values about ...
_MOVES = {
    "H", "T", "__getitem__", "_pack_padded_sequence", "cat", "chunk", "concat", "data", "expand", "expand_as",
    "flatten", "flip", "gather", "hstack", "index_select", "mH", "mT", "moveaxis", "movedim", "narrow", "pad",
    "pad_sequence", "permute", "repeat", "repeat_interleave", "reshape", "reshape_as", "roll", "select", "split",
    "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose",
    "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vstack",
}  # fmt: skip
# ... of which these join several, ...
_JOINS = {"cat", "concat", "hstack"}
# ... that make a vector of each value, ...
_LOOKUPS = {"embedding", "one_hot"}
# ... the same by comparing a value with all that it may be, along an axis of its own, ...
_COMPARISONS = {"__eq__", "eq"}
# ... that make a vector of each vector, ...
_VECTORS = {
    "__matmul__", "bmm", "gru", "gru_cell", "layer_norm", "linear", "lstm", "lstm_cell", "matmul", "mm", "rms_norm",
    "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell", "softmax",
}  # fmt: skip

# ... that write values into an array, that make one which holds the same everywhere, and that make one of numpy's.
_WRITES = {"__setitem__", "copy_"}
_CONSTANT_FILLS = {"fill_", "zero_"}
_FILLS = _CONSTANT_FILLS | {"bernoulli_", "exponential_", "normal_", "random_", "uniform_"}
_CONSTANTS = {"full", "full_like", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "zeros", "zeros_like"}
_OF_NUMPY = {"as_tensor", "asarray", "tensor"}
_VIEWED = {"H", "T", "data", "mH", "mT"}  # attributes that are views of a tensor, as `transpose` gives them
_OTHER = "__get__"  # the name of a function that gives another attribute
_MOST_FUNCTIONS = 4096  # whose names are remembered


_OPEN: weakref.WeakSet[Places] = weakref.WeakSet()


def _rest_in_child() -> None:
    for places in _OPEN:
        places.is_paused = True


os.register_at_fork(after_in_child=_rest_in_child)  # a loader worker makes batches, of which nobody asks it


class Places(TorchFunctionMode):
    """Follows where values stand, while it is the mode of torch's functions.

    Attributes:
        arrays: The arrays in which values stand.
        on_lookup: Told of each embedding what it reads, the places of that, and its `padding_idx`.
        is_paused: Whether nothing is followed: while an optimiser works, and when all has been watched.
        is_in_step: Whether an optimiser makes a step: a backward pass is the last thing that its closure does.
        layouts: What is done to axes.
        strangers: What states are that no call has left.
        use: Is told what each function is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = self.is_in_step = False
        self.layouts = Layouts()
        self.strangers = Strangers()
        self.use: Callable[[Iterable[Any]], None] = lambda given: None
        self._is_open = self._is_resting = False
        self._depth = 0  # of other modes that were open before
        self._places: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self.arrays = Arrays()
        self.on_lookup: Callable[[Tensor, Tensor, int | None], None] | None = None
        self._made: set[int] = set()  # the ids of tensors that the model has made of what it read

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and follow what it does to places."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.is_paused or is_recorded():
            return result
        if self.is_in_step and func is Tensor.backward:
            self.is_paused = True
            return result
        try:
            name = _name_of(func)
            if name in _WRITES or (name != _OTHER and (isinstance(result, Tensor) or type(result) in (tuple, list))):
                with DisableTorchFunction():  # no other mode, as of a default device, has to do with places
                    self.use(args)
                    self._follow(name, func, args, kwargs, result)
        except Exception:  # whatever somebody's function does: then its places are unknown
            return result
        return result

    def begin(self) -> None:
        """Follow from now on."""
        self._depth = _len_torch_function_stack()
        self._open()
        _OPEN.add(self)

    def begin_again(self) -> bool:
        """Follow again, after the end, where no other mode was begun meanwhile; return whether that is so."""
        self.is_paused = False
        if not self._is_open and _len_torch_function_stack() == self._depth:
            self._open()
            _OPEN.add(self)
        return self._is_open

    def _open(self) -> None:
        self._is_open, self._is_resting = True, False
        self.__enter__()  # type: ignore[no-untyped-call]

    def rest(self) -> None:
        """Be no mode for a while, which costs nothing then, unless another one was begun meanwhile."""
        self.is_paused = True
        if self._is_open and _get_current_function_mode() is self:  # type: ignore[no-untyped-call]
            self._is_open, self._is_resting = False, True
            self.__exit__(None, None, None)

    def go_on(self) -> None:
        """Follow again, after a rest."""
        self.is_paused = False
        if self._is_resting and _len_torch_function_stack() == self._depth:
            self._open()

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
        self._is_resting = False
        self._places.clear()
        _OPEN.discard(self)

    def of(self, tensor: Tensor) -> Tensor | None:
        """The place of each value, int64 of the tensor's shape; None where they are unknown."""
        if self._is_resting:
            return None
        found = self._places.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        is_made = tensor.requires_grad or tensor.grad_fn is not None
        return None if is_made or tensor.numel() > MOST_VALUES else self.arrays.places_of(tensor)

    def forget_what_was_made(self) -> None:
        """The model has returned: what it gives is read by it again as something new."""
        for key in self._made:
            self._places.pop(key, None)
        self._made.clear()

    def stand(self, tensor: Tensor, sequence: Integers, step: Integers) -> set[int]:
        """Take somebody's word for where a tensor's values stand: each sequence counts as an array of its own.

        Args:
            tensor: (lanes, steps, ...).
            sequence: (lanes, 1) or (lanes, steps).
            step: (lanes, steps); negative where nothing is read.

        Returns:
            The numbers of the arrays.
        """
        found, which = np.unique(np.broadcast_to(sequence, step.shape), return_inverse=True)
        arrays = np.array([self.arrays.of_sequence(int(each)) for each in found])
        places = torch.from_numpy(np.where(step < 0, FILLED, arrays[which.reshape(step.shape)] * ARRAY + step))
        if not self.is_paused:
            self.keep(tensor, places[(...,) + (None,) * (tensor.ndim - 2)].expand(tensor.shape))
        return set(arrays.tolist())

    def keep(self, result: Any, places: Any) -> None:
        """A tensor, or each of several, stands at these places."""
        if isinstance(result, (tuple, list)):
            for one, other in zip(result, places, strict=True):
                self.keep(one, other)
        elif isinstance(result, Tensor) and places.shape == result.shape and result.numel() <= MOST_VALUES:
            key = id(result)
            self._places[key] = weakref.ref(result, lambda _: self._places.pop(key, None)), places

    def _follow(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        # What a function writes into is its result: the places of it are found anew, and not written there.
        kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        self.strangers.draw(name, args, result)
        if name in _MOVES:
            if isinstance(result, (Tensor, tuple, list)):
                self.layouts.move(name, args, result)
                if self._is_told_by_storage(args, result) or (name in _JOINS and _is_one_text(args, result)):
                    return
                swapped, swapped_by_name = self._swapped(args, kwargs)
                if name == "pad_sequence":
                    swapped[2:3] = [float(FILLED)]  # the value of the padding
                elif name == "pad":
                    swapped_by_name["value"] = float(FILLED)
                places = func(*swapped, **swapped_by_name)
                if name == "_pack_padded_sequence":  # the other result counts rows
                    result, places = result[0], places[0]
                self.keep(result, places)
                self.layouts.stack(name, args, kwargs, result, places)
                if any(id(tensor) in self._made for tensor in _tensors_in([*args, *kwargs.values()])):
                    self._made.update(map(id, _tensors_in([result])))
        elif name in _LOOKUPS:
            read = args[0] if args else kwargs["input"]
            places = self._needed(read)
            if self.on_lookup is not None:
                self.on_lookup(read, places, kwargs.get("padding_idx"))
            self.keep(result, places.unsqueeze(-1).expand(result.shape))
            self.layouts.treat([*args, *kwargs.values()], result)
        elif name == "__setitem__":
            self._set(*args)
        elif name in _WRITES:
            self._write(args[0], args[0], args[1])
        elif name in _FILLS:
            self._write(args[0], args[0], None, is_constant=name in _CONSTANT_FILLS)
        elif name in _CONSTANTS:
            self.arrays.note_constant(result)
        elif name in _OF_NUMPY and args and isinstance(args[0], np.ndarray):
            found = self.arrays.places_in_numpy(args[0])
            if found is not None:
                self.keep(result, found)
        elif not name.endswith("_") or name.startswith("__"):  # else it changes values where they stand
            output = result[0] if name in _VECTORS and isinstance(result, tuple) else result
            if isinstance(output, Tensor) and output.ndim:
                self.layouts.treat([*args, *kwargs.values()], output)
                self._follow_values(name, [*args, *kwargs.values()], output)

    def _follow_values(self, name: str, given: Iterable[Any], result: Tensor) -> None:
        """A mask of truths is not what is read; of two that are, neither says where the result stands."""
        tensors = [one for one in given if isinstance(one, Tensor)]
        tensors = [one for one in tensors if one.dtype is not torch.bool] or tensors
        if name not in _VECTORS and len({id(one) for one in tensors if one.shape == result.shape}) > 1:
            return
        for tensor in tensors:
            if (places := self.of(tensor)) is not None:
                if name in _VECTORS and tensor.shape[:-1] == result.shape[:-1]:
                    self.keep(result, places[..., :1].expand(result.shape))
                elif name not in _VECTORS and tensor.shape == result.shape:
                    self.keep(result, places)
                elif name in _COMPARISONS and tensor.shape == (*result.shape[:-1], 1):
                    self.keep(result, places.expand(result.shape))
                else:
                    return
                if name in _VECTORS or id(tensor) in self._made:
                    self._made.add(id(result))
                return

    def _set(self, whole: Tensor, index: Any, value: Any) -> None:
        if type(index) is int and whole.ndim == 1 and type(value) in (int, float):  # many are set one by one
            if not whole.requires_grad:
                self._places.pop(id(whole), None)
                self.arrays.fill_one(whole, index % len(whole))
        else:
            self._write(whole[index], whole, value)

    def _write(self, view: Tensor, whole: Tensor, value: Any, *, is_constant: bool = False) -> None:
        """A view alone is where the whole is; other indices make a copy, and then it is unknown what was written."""
        is_view = view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        is_data = isinstance(value, Tensor) and not value.requires_grad and id(value) not in self._made
        if is_view and not whole.requires_grad:
            self._places.pop(id(whole), None)
            self.arrays.write(view, self._lasting(value) if is_data else None, is_constant=is_constant)

    def _lasting(self, value: Tensor) -> Tensor | None:
        """The places of a value; where what it was made of is gone, those in its own storage."""
        places = self.of(value)
        if places is None or not places.numel() or self.arrays.is_alive(int(places.flatten()[0]) // ARRAY):
            return places
        return self.arrays.places_of(value)

    def _is_told_by_storage(self, args: Any, result: Any) -> bool:
        """Whether a view of a tensor nobody has copied tells itself where it stands."""
        if not args or not isinstance(args[0], Tensor) or not isinstance(result, Tensor):
            return False
        is_plain = id(args[0]) not in self._places and not args[0].requires_grad
        return is_plain and result.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()

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


@functools.lru_cache(_MOST_FUNCTIONS)
def _name_of(func: Any) -> str:
    """The name of a function, or of the attribute that it gives, where that is a view."""
    name = getattr(func, "__name__", "")
    if name != "__get__":
        return name
    attribute = getattr(getattr(func, "__self__", None), "__name__", "")
    return attribute if attribute in _VIEWED else _OTHER


def _is_one_text(args: Any, result: Any) -> bool:
    """Whether arrays without further axes are joined, or most of each, as the lines of a text are: then it is one."""
    parts = args[0] if args and isinstance(args[0], (tuple, list)) else ()
    if not isinstance(result, Tensor) or result.ndim != 1 or len(parts) < 2:
        return False
    storages = [part.untyped_storage() for part in parts]
    is_apart = len({storage.data_ptr() for storage in storages}) == len(parts)
    return is_apart and all(2 * part.nbytes >= s.nbytes() for part, s in zip(parts, storages, strict=True))


def _tensors_in(given: Iterable[Any]) -> Iterator[Tensor]:
    for part in given:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from _tensors_in(part)
