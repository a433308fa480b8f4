"""What torch's functions do to values, told by their names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from echo_torch.diagnosis.watching.regular import Later, is_regular

# The names of functions that move values about ...
MOVES = {
    "H", "T", "__getitem__", "_pack_padded_sequence", "cat", "chunk", "concat", "data", "expand", "expand_as",
    "flatten", "flip", "gather", "hstack", "index_select", "mH", "mT", "moveaxis", "movedim", "narrow", "pad",
    "pad_sequence", "permute", "repeat", "repeat_interleave", "reshape", "reshape_as", "roll", "select", "split",
    "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose",
    "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vstack",
}  # fmt: skip
# ... of which these give views, if they can, ...
VIEWS = {
    "__getitem__", "chunk", "expand", "flatten", "moveaxis", "movedim", "narrow", "permute", "reshape", "select",
    "split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "transpose", "unbind",
    "unflatten", "unfold", "unsqueeze", "view",
}  # fmt: skip
# ... of which these take parts, ...
PARTS = {"__getitem__", "chunk", "narrow", "select", "split", "unbind"}
# ... and these join several, ...
CATS = {"cat", "concat"}
JOINS = CATS | {"hstack"}
# ... that make a vector of each value, ...
LOOKUPS = {"embedding", "one_hot"}
# ... the same by comparing a value with all that it may be, along an axis of its own, ...
COMPARISONS = {"__eq__", "eq"}
# ... that make a vector of each vector, ...
VECTORS = {
    "__matmul__", "bmm", "gru", "gru_cell", "layer_norm", "linear", "lstm", "lstm_cell", "matmul", "mm", "rms_norm",
    "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell", "softmax",
}  # fmt: skip

# ... that write values into an array, that make one which holds the same everywhere, and that make one of numpy's.
WRITES = {"__setitem__", "copy_"}
FOLLOWED = WRITES | {"sort"}  # whatever they return
CONSTANT_FILLS = {"fill_", "zero_"}
FILLS = CONSTANT_FILLS | {"bernoulli_", "exponential_", "normal_", "random_", "uniform_"}
# Random numbers that go with other values, and are no data: dropout masks, and noise in the likeness of data.
COMPANIONS = {"bernoulli", "bernoulli_", "rand_like", "randn_like"}
CONSTANTS = {"full", "full_like", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "zeros", "zeros_like"}
OF_NUMPY = {"as_tensor", "asarray", "tensor"}
# Those that give indices by what an array holds; `where` where it is given a condition alone.
ORDERS = {"argsort", "nonzero", "sort", "where"}
# Those that make numbers of nothing, whole; and what a function gives that gives no tensor.
SOURCES = {"arange", "empty", "eye", "linspace", "randint", "randperm"}
NUMBERS = {bool, float, int}
_VIEWED = {"H", "T", "data", "mH", "mT"}  # attributes that are views of a tensor, as `transpose` gives them
OTHER = "__get__"  # the name of a function that gives another attribute
# Layers that read each vector of their input by itself, and do nothing else that is of interest.
LAYERS = {nn.RNN: 3, nn.LSTM: 3, nn.GRU: 3, nn.RNNCell: 2, nn.LSTMCell: 2, nn.GRUCell: 2}  # the axes of a batch
_MOST_FUNCTIONS = 4096  # whose names are remembered


@functools.lru_cache(_MOST_FUNCTIONS)
def name_of(func: Any) -> str:
    """The name of a function, or of the attribute that it gives, where that is a view."""
    name = getattr(func, "__name__", "")
    if name != "__get__":
        return name
    attribute = getattr(getattr(func, "__self__", None), "__name__", "")
    return attribute if attribute in _VIEWED else OTHER


def views(func: Any, places: Tensor, given: Any, named: Any) -> Any:
    """Views of regular places; None where a function does not give views alone."""
    if not places.is_meta or next(tensors_in([*given, *named.values()]), None) is not None:
        return None
    try:
        found = func(places, *given, **named)
    except Exception:  # what it cannot do without memory
        return None
    first = next(tensors_in([found]), None)  # of several all are views, or none
    return found if first is not None and is_regular(first) else None


def at_first(places: Tensor | Later, shape: Sequence[int]) -> Tensor:
    """Places where each feature stands where the first one of its vector stood."""
    if isinstance(places, Later):
        places = places()
    if places.is_meta:
        return places.as_strided(shape, (*places.stride()[:-1], 0))
    return places[..., :1].expand(shape)


def is_one_text(args: Any, result: Any) -> bool:
    """Whether arrays without further axes are joined, or most of each, as the lines of a text are: then it is one."""
    parts = args[0] if args and isinstance(args[0], (tuple, list)) else ()
    if not isinstance(result, Tensor) or result.ndim != 1 or len(parts) < 2:
        return False
    storages = [part.untyped_storage() for part in parts]
    is_apart = len({storage.data_ptr() for storage in storages}) == len(parts)
    return is_apart and all(2 * part.nbytes >= s.nbytes() for part, s in zip(parts, storages, strict=True))


def axis_and_index(given: Sequence[Any], named: dict[str, Any]) -> tuple[Any, Any]:
    """What `index_select` is given beside a tensor, in its order or by name."""
    axis, index = [*given[1:], *(named[key] for key in ("dim", "index") if key in named)]
    return axis, index


def joins_features(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a function joins parts along their last axis, each vector of the result one of each part."""
    if name not in JOINS or not args or not isinstance(args[0], (tuple, list)):
        return False
    axis = 1 if name == "hstack" else args[1] if len(args) > 1 else kwargs.get("dim", 0)
    num_axes = getattr(args[0][0], "ndim", 0)
    return num_axes > 1 and axis in (-1, num_axes - 1)


def tensors_in(given: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in lists and tuples of any depth."""
    for part in given:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from tensors_in(part)


def swapped(args: Any, kwargs: Any, places_of: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
    """The arguments with places in the place of the first tensor, or list of them; indices stay."""
    is_done = False

    def swap(part: Any) -> Any:
        nonlocal is_done
        is_list = isinstance(part, (tuple, list)) and part and all(isinstance(one, Tensor) for one in part)
        if is_done or not (is_list or isinstance(part, Tensor)):
            return part
        is_done = True
        return [places_of(one) for one in part] if is_list else places_of(part)

    return [swap(part) for part in args], {name: swap(part) for name, part in kwargs.items()}
