"""A user's own model: its class found by name, its source, and the first look at what it does.

What it must be:

    class Model(nn.Module):
        def __init__(self, vocabulary_size, width=32): ...      # `vocabulary_size` only where it is named
        def initial_state(self, num_lanes): ...                 # on the device of the weights
        def forward(self, symbols, state): ...                  # -> logits (lanes, steps, vocabulary_size), state

Symbols are int64 (lanes, steps), -1 where nothing is read. A state is a tensor or any nesting of them.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from echo_torch.errors import RuleError, UserError, join, plain, shorten, suggest
from echo_torch.files import open_regular
from echo_torch.models.encoding import Encoding
from echo_torch.models.networks import EchoModel
from echo_torch.models.state import StateForm, leaves_of, names_of

if TYPE_CHECKING:

    class OwnModel(nn.Module):
        """What a user's model has, for type checkers; nobody inherits from it."""

        def initial_state(self, num_lanes: int) -> Any:
            """The state of lanes that have read nothing yet."""


Network: TypeAlias = "EchoModel | OwnModel"


def own_model_class(path: str) -> type[nn.Module]:
    """The class of a user's own model; its module is imported, which runs it, and nothing of it is called.

    Args:
        path: "package.module:Class", where a module in the current directory is found too.

    Raises:
        UserError: If the module cannot be imported.
        RuleError: If there is no such class, or it is no nn.Module with `forward` and `initial_state`.
    """
    name, _, class_name = path.partition(":")
    found: Any = _import(name)
    for part in class_name.split("."):
        if not hasattr(found, part):
            got = f"{path}, and there is no {part}{suggest(part, _names_of(found))}"
            raise RuleError("model", f"$model must name a class in {plain(_place_of(found, name))}", got)
        found = getattr(found, part)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = "a class that is no nn.Module" if isinstance(found, type) else f"a {type(found).__name__}"
        _refuse(path, what)
    if found.forward is nn.Module.forward:
        _refuse(path, "a class without forward")
    if not callable(getattr(found, "initial_state", None)):
        _refuse(path, "a class without initial_state")
    return found


_DIGESTS: dict[type, str] = {}


def source_digest(kind: type) -> str:
    """SHA-256, in hex, of the file that defines a class, as it was when this was first asked.

    A file that changes later is not what runs here: its module is imported once.

    Raises:
        UserError: If there is none.
    """
    if kind not in _DIGESTS:
        try:
            file = inspect.getsourcefile(kind)
            with open_regular(file or "") as source:
                _DIGESTS[kind] = hashlib.file_digest(source, "sha256").hexdigest()
        except (OSError, TypeError):
            raise UserError(
                f"{_name_of(kind)} stands in no source file, so nobody could tell later whether it is still the same; "
                "write it into a module."
            ) from None
    return _DIGESTS[kind]


def build(kind: type[nn.Module], vocabulary_size: int, options: Mapping[str, Any]) -> Network:
    """The model with its first weights.

    Args:
        kind: As of `own_model_class`.
        vocabulary_size: Number of different symbols, which it is given where it names it.
        options: Its other arguments.

    Raises:
        RuleError: If it has no such arguments, or needs others.
        UserError: If it fails.
    """
    given = _arguments(kind, vocabulary_size, options)
    try:
        return cast("Network", kind(**given))
    except Exception as error:
        raise UserError(f"{_name_of(kind)} cannot be built: {_in_a_line(error)}.") from error


def check_model(model: Network, vocabulary_size: int) -> None:
    """Refuse a model that cannot be trained here, as a few steps show. What it draws and counts meanwhile is its own.

    Args:
        model: One that is thrown away afterwards.
        vocabulary_size: Number of different symbols.

    Raises:
        RuleError: If it breaks a rule, or its state does.
        UserError: If it fails.
    """
    name = _name_of(type(model))
    _check_weights(model, name)
    size = encoding.size if isinstance(encoding := getattr(model, "encoding", None), Encoding) else vocabulary_size
    last = vocabulary_size - 1
    whole, lossy = torch.tensor([[0, last, 0], [last, 0, last]]), torch.tensor([[0, last, -1], [-1, 0, last]])
    model.eval()
    form = StateForm(model.initial_state)
    with torch.no_grad():
        state = _call(f"initial_state of {name}", form.fresh, 2)
        shapes = _shapes(state)
        _call(f"initial_state of {name}", lambda: form.lane_axes)
        for symbols, reads in ((whole, "symbols"), (lossy, "symbols where -1 says that nothing is read")):
            answer = _call(f"forward of {name}, given {reads},", model, symbols, state)
            logits, state = _pair(name, answer)
            if logits.shape != (2, 3, size) or not logits.is_floating_point():
                raise RuleError(
                    "model",
                    f"forward of {name} must return logits (lanes, steps, vocabulary_size), real numbers",
                    f"{logits.dtype} of shape {tuple(logits.shape)} where (2, 3, {size}) is expected",
                )
            try:
                form.check(state, 2)
            except RuleError:
                rule = f"forward of {name} must return a state of the form that initial_state gives"
                raise RuleError("model", rule, f"{_shapes(state)} where {shapes} is expected") from None


def _pair(name: str, answer: Any) -> tuple[Tensor, Any]:
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], Tensor):
        got = f"a {type(answer).__name__}" + (f" of {len(answer)}" if isinstance(answer, tuple) else "")
        raise RuleError("model", f"forward of {name} must return two values, (logits, state)", got)
    return answer


def _shapes(state: Any) -> str:
    shapes = [str(tuple(leaf.shape)) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves_of(state)]
    return ", ".join(map(" ".join, zip(names_of(state), shapes, strict=True))) or "nothing"


def _check_weights(model: nn.Module, name: str) -> None:
    weights = list(model.parameters())
    if any(is_lazy(weight) for weight in weights):
        rule = f"{name} must know the shapes of its weights when it is built"
        raise RuleError("model", rule, "a lazy module", way_out="give its sizes")
    if not any(weight.requires_grad for weight in weights):
        raise RuleError("model", f"{name} must have weights to train", "none")
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            rule = f"The state_dict of {name} must hold plain tensors"
            raise RuleError("model", rule, f"{type(value).__name__} for {key}", reason="so that they can be compared")


def _arguments(kind: type[nn.Module], vocabulary_size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the class is called with.

    Raises:
        RuleError: If it has no such arguments, or needs others.
    """
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):  # it does not say
        return {"vocabulary_size": vocabulary_size, **options}
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [parameter.name for parameter in named if parameter.name != "vocabulary_size"]
    takes = f"$model_options must name arguments of {_name_of(kind)}, which takes {', '.join(names) or 'none'}"
    for option in options:
        if option == "vocabulary_size":
            raise RuleError("model_options", "$model_options must leave vocabulary_size to $vocabulary_size")
        if option not in names and not takes_all:
            raise RuleError("model_options", takes, f"{option}{suggest(option, names)}")
    needed = [p.name for p in named if p.default is p.empty and p.name in names and p.name not in options]
    if needed:
        raise RuleError("model_options", takes, f"nothing for {', '.join(needed)}, without which it cannot be built")
    is_named = takes_all or len(names) < len(named)
    return {**({"vocabulary_size": vocabulary_size} if is_named else {}), **options}


def _import(name: str) -> Any:
    # As `python -m` does, wherever the program itself lies; behind all other places, so that nothing is hidden.
    if "" not in sys.path and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        raise RuleError(
            "model",
            f"$model must name a module that can be imported, and there is no {plain(error.name)}",
            name,
            way_out="begin in the directory that holds it",
        ) from None
    except (Exception, SystemExit) as error:  # whatever somebody's module does
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> UserError:
    return UserError(f"The module {name!r} cannot be imported: {_in_a_line(error)}.")


def _call(what: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} fails: {_in_a_line(error)}.") from error


def _in_a_line(error: BaseException) -> str:
    message = " ".join(str(error).split())
    message = message if len(message) <= 300 else f"{message[:300]}..."
    return join(type(error).__name__, message, ": ").rstrip(".")


def _refuse(path: str, got: str) -> NoReturn:
    rule = "$model must name an nn.Module with forward(symbols, state) and initial_state(lanes)"
    raise RuleError("model", rule, f"{path}, {got}")


def _names_of(found: Any) -> list[str]:
    return [name for name, value in vars(found).items() if isinstance(value, type)]


def _place_of(found: Any, module: str) -> str:
    return repr(module) if inspect.ismodule(found) else shorten(getattr(found, "__qualname__", repr(found)))


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
