"""Where the values of a tensor stand in the arrays that they come from, followed through whatever a script does.

A tensor that nobody has copied tells it by its storage: which one, and at which offset. A copy is followed: what is
done to values is done to their places too, as long as it only moves them, or treats each alone, or each vector.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.watching import functions as of_torch
from echo_torch.diagnosis.watching.arrays import ARRAY, FILLED, MOST_VALUES, NOWHERE, Arrays
from echo_torch.diagnosis.watching.compiled import is_recorded
from echo_torch.diagnosis.watching.foreign import Strangers
from echo_torch.diagnosis.watching.layouts import Layouts
from echo_torch.diagnosis.watching.mode import RestingMode
from echo_torch.diagnosis.watching.regular import Later, are_of_one_form, first_of, joined, padded, stacked, written_out
from echo_torch.diagnosis.watching.selections import Selections
from echo_torch.diagnosis.watching.symbol_tables import Tables, symbols_in
from echo_torch.diagnosis.watching.waiting import Waiting

# Of a tensor: itself; where it stands (None: it is known that nobody knows); and the ids of the layers that it has come
# through, if the model has made it (None: it has not).
_Kept = tuple[weakref.ref[Tensor], Tensor | Later | None, frozenset[int] | None]
_NOTHING = (None, False, None)  # what is said of a tensor of which nothing is kept


class Places(RestingMode):
    """Follows where values stand, while it is the mode of torch's functions.

    Attributes:
        arrays: The arrays in which values stand.
        on_lookup: Told of each embedding what it reads, the places of that, and its `padding_idx`.
        on_unpacked: Told of packed values that are padded: these, whether rows come first, the result and the lengths.
        has_unread: Whether batches have come from workers that could not be read once more.
        layouts: What is done to axes.
        strangers: What states are that no call has left.
        selections: What was picked out of arrays, or put in order.
        use: Is told what each function is given.
        waiting: Calls of cells that are looked at later.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_unread = False
        self.layouts = Layouts()
        self.strangers = Strangers()
        self.selections = Selections()
        self.use: Callable[[Iterable[Any]], None] = lambda given: None
        self.waiting = Waiting(lambda call: None, lambda: None)
        self._layer: nn.Module | None = None  # at work, and nothing is followed inside
        self._kept: dict[int, _Kept] = {}  # by the ids of tensors
        self.arrays = Arrays()
        self._tables = Tables(self.arrays)
        self.on_lookup: Callable[[Tensor, Tensor, int | None], None] | None = None
        self.on_unpacked: Callable[[Tensor, bool, Tensor, Tensor], None] | None = None
        self._made: set[int] = set()  # the ids of tensors that the model has made of what it read
        self._versions: dict[int, int | None] = {}  # of the tensors that are remembered after the end, by their ids

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and follow what it does to places."""
        name = of_torch.name_of(func)
        if self.waiting.calls and not self.is_paused and self.waiting.are_concerned(name, args, kwargs or {}):
            self.look_at_waiting()
        result = func(*args, **kwargs) if kwargs else func(*args)
        if (
            self.is_paused
            or type(result) in of_torch.NUMBERS
            or (name in of_torch.SOURCES and not (kwargs and "out" in kwargs))
        ):
            return result
        is_followed = isinstance(result, Tensor) or type(result) in (tuple, list) or name in of_torch.FOLLOWED
        if not is_followed or name == of_torch.OTHER or is_recorded():
            return result
        try:
            with DisableTorchFunction():  # no other mode, as of a default device, has to do with places
                self.use(args)
                self._follow(name, func, args, kwargs or {}, result)
        except Exception:  # whatever somebody's function does: then its places are unknown
            return result
        return result

    def look_at_waiting(self) -> None:
        """Look at the calls of cells that wait."""
        with DisableTorchFunction():
            self.waiting.look()

    def begin_layer(self, layer: nn.Module, inputs: Any) -> None:
        """A layer begins. What one of torch's own does to values is known, so nothing need be followed inside."""
        num_axes = of_torch.LAYERS.get(type(layer))
        if num_axes is None or self.is_paused or not inputs or layer._forward_pre_hooks or "forward" in vars(layer):
            return
        read = inputs[0]
        is_known = isinstance(read, Tensor) and (
            not read.requires_grad or id(read) in self._kept or self.waiting.holds(read)
        )
        if is_known and read.ndim == num_axes and read.numel() <= MOST_VALUES:
            self._layer = layer
            self.rest()

    def end_layer(self, layer: nn.Module) -> bool:
        """A layer has returned, or raised; return whether nothing was followed inside."""
        if self._layer is not layer:
            return False
        self._layer = None
        self.go_on()
        return True

    def follow_layer(self, layer: nn.Module, given: Iterable[Any], output: Any) -> None:
        """A layer has returned inside of which nothing was followed; without an output it has raised."""
        features = output[0] if isinstance(output, tuple) else output
        tensors = [one for one in given if isinstance(one, Tensor)]
        if isinstance(features, Tensor):
            self.use(tensors)
            self.layouts.treat(tensors, features)
            self._follow_layer(layer, tensors[0], features)

    def is_fed_back(self, layer: nn.Module, read: Any) -> bool:
        """Whether a layer reads what was made of its own output: where that stands says nothing of where it reads."""
        return id(layer) in (self._kept.get(id(read), _NOTHING)[2] or ())

    def _follow_layer(self, layer: nn.Module, read: Tensor, features: Tensor) -> None:
        lineage = self._kept.get(id(read), _NOTHING)[2] or frozenset()
        found = None if id(layer) in lineage else self._at_first(self._where(read), read, features)
        self._keep(features, self._where(features) if found is None else found, lineage | {id(layer)})

    def end(self, *, is_forced: bool = True) -> None:
        """Follow no more. Of the tensors that are there it is remembered where they stand, unless the end is forced."""
        super().end(is_forced=is_forced)
        if is_forced:
            self._kept.clear()
        self._versions = {key: _version_of(found()) for key, (found, _, _) in self._kept.items()}

    def begin_again(self) -> bool:
        """As of `RestingMode`. What was written to meanwhile stands nobody knows where."""
        was_open, is_open = self._is_open, super().begin_again()
        if is_open and not was_open:
            for key, (found, _, lineage) in list(self._kept.items()):
                version = _version_of(found())
                if version is None or version != self._versions.get(key):
                    self._kept[key] = found, None, lineage
        return is_open

    def of(self, tensor: Tensor) -> Tensor | None:
        """The place of each value, int64 of the tensor's shape; None where they are unknown."""
        found = self.where(tensor)
        return None if found is None else written_out(found)

    def where(self, tensor: Tensor) -> Tensor | None:
        """The same, without memory where the places are regular."""
        found = self._where(tensor)
        return found() if isinstance(found, Later) else found

    def _where(self, tensor: Tensor) -> Tensor | Later | None:
        if self._is_resting:
            return None
        found = self._kept.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        return None if tensor.requires_grad or tensor.numel() > MOST_VALUES else self.arrays.places_of(tensor)

    def forget_what_was_made(self) -> None:
        """The model has returned: what it gives is read by it again as something new."""
        for key in self._made:
            if self._kept.get(key, _NOTHING)[2] is not None:  # else another tensor has its id now
                del self._kept[key]
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
        elif isinstance(result, Tensor) and places.shape == result.shape:
            self._keep(result, places)

    def keep_unknown(self, result: Tensor) -> None:
        """Nobody knows where a tensor stands."""
        self._keep(result, None)

    def tells_itself(self, tensor: Tensor) -> bool:
        """Whether its storage alone tells where a tensor stands."""
        return not (id(tensor) in self._kept or tensor.requires_grad or tensor.numel() > MOST_VALUES)

    def _keep(
        self, result: Tensor, places: Tensor | Later | None, lineage: frozenset[int] | None = None
    ) -> None:  # fmt: skip
        if result.numel() <= MOST_VALUES:
            key = id(result)
            self._kept[key] = weakref.ref(result, functools.partial(self._kept.pop, key)), places, lineage
            if lineage is not None:
                self._made.add(key)

    def _follow(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if "out" in kwargs:  # what a function writes into is its result: its places are found anew
            if isinstance(out := kwargs["out"], Tensor):
                self._write(out, out, None)
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        self.strangers.draw(name, args, result)
        if name in of_torch.COMPANIONS:
            self.arrays.note_companion(result)
            if name not in of_torch.FILLS:  # of what it was given it has the form alone
                return
        if name in of_torch.MOVES:
            self.selections.move(args, result)
            if (symbols := symbols_in(name, args, kwargs)) is not None and self._is_table(args[0], symbols):
                self._follow_lookup([symbols], {}, result)
            elif args and self._kept.get(id(args[0]), _NOTHING)[1] is None:
                for one in of_torch.tensors_in([result]):
                    self._keep(one, None)
            elif isinstance(result, (Tensor, tuple, list)):
                self._follow_move(name, func, args, kwargs, result)
        elif name in of_torch.LOOKUPS:
            self._follow_lookup(args, kwargs, result)
        elif name == "_pad_packed_sequence":
            if self.on_unpacked is not None:
                self.on_unpacked(args[0], args[2], *result)
        elif name == "__setitem__":
            self._set(*args)
        elif name in of_torch.WRITES:
            self._write(args[0], args[0], args[1])
        elif name in of_torch.FILLS:
            self._write(args[0], args[0], None, is_constant=name in of_torch.CONSTANT_FILLS)
        elif name in of_torch.CONSTANTS:
            self.arrays.note_constant(result)
        elif name in of_torch.OF_NUMPY and args and isinstance(args[0], np.ndarray):
            found = self.arrays.places_in_numpy(args[0])
            if found is not None:
                self.keep(result, found)
        elif name in of_torch.ORDERS and len(args) + len(kwargs) < 3:
            self.selections.order(result[1] if name == "sort" else result)
        elif not name.endswith("_") or name.startswith("__"):  # else it changes values where they stand
            self._follow_treatment(name, args, kwargs, result)

    def _follow_move(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Values have been moved about."""
        self.layouts.move(name, args, result)
        if name in of_torch.PARTS and args and id(args[0]) not in self._kept:
            self.arrays.note_parts(args[0])
        is_text = name in of_torch.JOINS and of_torch.is_one_text(args, result)
        if is_text or self._is_told_by_storage(args, result):
            return
        if name == "stack" and isinstance(result, Tensor) and self._stack(func, args, kwargs, result):
            return
        telling = self._telling(args[0]) if of_torch.joins_features(name, args, kwargs) else None
        places = self._moved(name, func, args, kwargs, telling)
        if name == "_pack_padded_sequence":  # the other result counts rows
            result, places = result[0], places[0]
        self.keep(result, places)
        if (axis := self.selections.axis(name, args, kwargs)) is not None:
            self.selections.note(places, axis)
        self.layouts.stack(name, args, kwargs, result, places)
        self._note_made([*args, *kwargs.values()] if telling is None else telling, result)

    def _is_table(self, tensor: Tensor, symbols: Tensor) -> bool:
        places = None if self.selections.is_order(symbols) else self.where(tensor)
        return places is not None and self._tables.is_one(places, symbols, self.where(symbols))

    def _follow_lookup(self, args: Any, kwargs: Any, result: Any) -> None:
        """A vector has been made of each value."""
        read = args[0] if args else kwargs["input"]
        places = self._needed(read)  # else what it makes tells itself where it stands
        if self.on_lookup is not None:
            self.on_lookup(read, places, kwargs.get("padding_idx"))
        self.keep(result, places if places.shape == result.shape else places.unsqueeze(-1).expand(result.shape))
        self.layouts.treat([*args, *kwargs.values()], result)

    def _follow_treatment(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Each value, or each vector, has been treated by itself."""
        output = result[0] if name in of_torch.VECTORS and isinstance(result, tuple) else result
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        # `to` or `contiguous` that had nothing to do: what is kept of it would be old after the next writing.
        if not isinstance(output, Tensor) or not output.ndim or not tensors or self._is_told_by_storage(args, output):
            return
        self.layouts.treat(tensors, output)
        self.selections.move(tensors, output)
        tensors = [one for one in tensors if one.dtype is not torch.bool] or tensors  # a mask of truths is not read
        follow = self._follow_vectors if name in of_torch.VECTORS else self._follow_values
        follow(tensors, output, name in of_torch.COMPARISONS)

    def _follow_vectors(self, tensors: Sequence[Tensor], result: Tensor, is_comparison: bool = False) -> None:
        for tensor in tensors:
            if (places := self._where(tensor)) is not None:
                if (found := self._at_first(places, tensor, result)) is not None:
                    self._keep(result, found, self._lineage(tensors) or frozenset())
                return

    @staticmethod
    def _at_first(places: Tensor | Later | None, read: Tensor, result: Tensor) -> Later | None:
        """The places of vectors that were made of others, of which mostly nobody asks; None where they are unknown."""
        if places is None or read.shape[:-1] != result.shape[:-1]:
            return None
        return Later(functools.partial(of_torch.at_first, places, result.shape))

    def _follow_values(self, tensors: Sequence[Tensor], result: Tensor, is_comparison: bool = False) -> None:
        """Of two that are read, neither says where the result stands."""
        shape = result.shape
        if len(tensors) > 1 and len({id(one) for one in tensors if one.shape == shape}) > 1:
            tensors = [one for one in tensors if one.shape == shape and not self._is_companion(one)]
            if len({id(one) for one in tensors}) > 1:
                return
        for tensor in tensors:
            if (places := self._where(tensor)) is not None:
                if tensor.shape == shape:
                    self._keep(result, places)
                elif is_comparison and tensor.shape == (*shape[:-1], 1):
                    self.keep(result, self._needed(tensor).expand(shape))
                else:
                    return
                self._note_made([tensor], result)
                return

    def _is_companion(self, tensor: Tensor) -> bool:
        places = self.where(tensor) if self.arrays.has_companions else None
        if places is None or not places.numel():
            return False
        return self.arrays.is_companion(first_of(places) // ARRAY)

    def _set(self, whole: Tensor, index: Any, value: Any) -> None:
        if type(index) is int and whole.ndim == 1 and type(value) in (int, float):  # many are set one by one
            if not whole.requires_grad:
                self._kept.pop(id(whole), None)
                self.arrays.fill_one(whole, index % len(whole))
        else:
            self._write(whole[index], whole, value)

    def _write(self, view: Tensor, whole: Tensor, value: Any, *, is_constant: bool = False) -> None:
        """A view alone is where the whole is; other indices make a copy, and then it is unknown what was written."""
        is_view = view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        is_data = (
            isinstance(value, Tensor) and not value.requires_grad and self._kept.get(id(value), _NOTHING)[2] is None
        )
        if is_view and not whole.requires_grad:
            self._kept.pop(id(whole), None)
            self.arrays.write(view, self._lasting(value) if is_data else None, is_constant=is_constant)

    def _lasting(self, value: Tensor) -> Tensor | None:
        """The places of a value; where what it was made of is gone, those in its own storage."""
        places = self.of(value)
        if places is None or not places.numel() or self.arrays.is_alive(int(places.flatten()[0]) // ARRAY):
            return places
        return self.arrays.places_of(value)

    def _is_told_by_storage(self, args: Any, result: Any) -> bool:
        """Whether a view of a tensor nobody has copied tells itself where it stands."""
        if type(result) in (tuple, list) and result and getattr(result[0], "ndim", 1) == 0:
            result = result[0]  # of what is taken apart into single values all are views
        if not args or not isinstance(args[0], Tensor) or not isinstance(result, Tensor):
            return False
        is_plain = id(args[0]) not in self._kept and not args[0].requires_grad
        return is_plain and result.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()

    def _moved(self, name: str, func: Any, args: Any, kwargs: Any, telling: Sequence[Tensor] | None) -> Any:
        """What a function that moves values about does to the places of its first argument."""
        if name in of_torch.VIEWS and args and isinstance(args[0], Tensor):
            found = of_torch.views(func, self._needed(args[0]), args[1:], kwargs)
            if found is not None:
                return found
        if name in of_torch.CATS and (telling is None or len(telling) == len(args[0])):
            parts = [self._needed(part) for part in args[0]]
            if parts[0].ndim and are_of_one_form(parts):
                return joined(parts, args[1] if len(args) > 1 else kwargs.get("dim", 0))
        if name == "pad_sequence" and (found := self._padded(*args, **kwargs)) is not None:
            return found
        which = {id(part) for part in telling or ()}
        places_of = functools.partial(self._places_among, which) if telling else self._written_out
        swapped, swapped_by_name = of_torch.swapped(args, kwargs, places_of)
        if name == "pad_sequence":
            swapped[2:3] = [float(FILLED)]  # the value of the padding
        elif name == "pad":
            swapped_by_name["value"] = float(FILLED)
        return func(*swapped, **swapped_by_name)

    def _padded(
        self,
        sequences: Iterable[Tensor],
        batch_first: bool = False,
        padding_value: float = 0,
        padding_side: str = "right",
    ) -> Tensor | None:
        """The places of padded sequences; None unless those of all are regular, and alike."""
        parts = list(sequences)
        forms = [form for part in parts if (form := self._form_of(part)) is not None]
        if len(forms) < len(parts) or not parts[0].ndim or len({form[1:] for form in forms}) > 1:
            return None
        _, inner, strides = forms[0]
        first, sizes = [form[0] for form in forms], [part.shape[0] for part in parts]
        is_left = padding_side == "left"
        return padded(first, sizes, inner, strides, FILLED, is_batch_first=batch_first, is_left=is_left)

    def _form_of(self, tensor: Tensor) -> tuple[int, Sequence[int], Sequence[int]] | None:
        """The first place of a tensor, its shape but for its first axis, and the strides; None where there are none."""
        begin = self.arrays.begin_of(tensor) if self.tells_itself(tensor) else None
        if begin is not None:
            return begin, tensor.shape[1:], tensor.stride()
        places = self._needed(tensor)
        return (int(places.storage_offset()), places.shape[1:], places.stride()) if places.is_meta else None

    def _written_out(self, tensor: Tensor) -> Tensor:
        return written_out(self._needed(tensor))

    def _places_among(self, telling: Set[int], part: Tensor) -> Tensor:
        return self._written_out(part) if id(part) in telling else torch.full(part.shape, NOWHERE)

    def _telling(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Of parts that are features side by side those that say where all stand: data, if there are any.

        Else what a layer has made of data; of the others it is unknown, or they stand where the layer has read.
        """
        known = [part for part in parts if self._where(part) is not None]
        return [part for part in known if not self._kept.get(id(part), _NOTHING)[2]] or known

    def _stack(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> bool:
        """Parts are stacked that are all regular, as the outputs of many steps: mostly nobody asks where they stand."""
        parts = args[0] if args and isinstance(args[0], (tuple, list)) else ()
        places = [self._needed(part) for part in parts]
        if "out" in kwargs or not all(part.is_meta for part in places):
            return False
        self.layouts.stack_regular(places)
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        self._keep(result, Later(lambda: stacked(places, axis)))
        self._note_made(parts, result)
        return True

    def _note_made(self, given: Iterable[Any], result: Any) -> None:
        """What was made of something that the model has made, it has made too."""
        if self._made and (lineage := self._lineage(of_torch.tensors_in(given))) is not None:
            for tensor in of_torch.tensors_in([result]):
                found = self._kept.get(id(tensor))
                if found is not None:
                    self._kept[id(tensor)] = *found[:2], lineage
                    self._made.add(id(tensor))

    def _lineage(self, tensors: Iterable[Tensor]) -> frozenset[int] | None:
        found = [lineage for tensor in tensors if (lineage := self._kept.get(id(tensor), _NOTHING)[2]) is not None]
        return frozenset().union(*found) if found else None

    def _needed(self, tensor: Tensor) -> Tensor:
        places = self.where(tensor)
        if places is None:
            raise LookupError
        return places


def _version_of(tensor: Tensor | None) -> int | None:
    """How often somebody has written to a tensor; None where it is gone, or torch does not count."""
    return None if tensor is None or tensor.is_inference() else tensor._version
