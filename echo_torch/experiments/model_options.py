"""The arguments of a user's own model as text, "depth=2,width=32": what stands in a flag, in YAML and in a table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

from echo_torch.errors import RuleError, shorten

Value: TypeAlias = "str | int | float | bool | None"

_MAX_LENGTH = 500  # nobody reads more; a whole number of thousands of digits is none of these
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
_WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


def read_model_options(text: str | None) -> dict[str, Value]:
    """The arguments that a text stands for; None: there are none.

    >>> read_model_options("width=32,rate=0.5,bias=true,norm=layer")
    {'width': 32, 'rate': 0.5, 'bias': True, 'norm': 'layer'}

    Raises:
        RuleError: If it is not of this form.
    """
    values: dict[str, Value] = {}
    for part in [] if text is None else text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            _refuse(part)
        if not name.isidentifier():
            _refuse(part, f"{shorten(repr(name))}, which is no name")
        if name in values:
            _refuse(part, f"{name} twice")
        values[name] = _value(value)
    return values


def canonical_model_options(value: object) -> str | None:
    """The one text for some arguments, names in their order in the alphabet; None where there are none.

    >>> canonical_model_options({"width": 32, "depth": 2}) == canonical_model_options("width=32, depth=2")
    True

    Args:
        value: Text, or a mapping of names to numbers, words, true or false, and None.

    Raises:
        RuleError: If it is neither, or cannot be written so.
    """
    if value is None or value == {}:
        return None
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if not isinstance(value, str):
        _refuse(value)
    if len(value) > _MAX_LENGTH:
        rule = f"$model_options must be text of at most {_MAX_LENGTH} characters"
        raise RuleError("model_options", rule, f"{len(value)} characters")
    return _write(read_model_options(value))


def _from_mapping(values: Mapping[Any, Any]) -> str:
    for name, value in values.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            _refuse(value, f"a {type(value).__name__} for {name}")
    text = _write({str(name): value for name, value in values.items()})
    found = read_model_options(canonical_model_options(text))
    for name, value in values.items():
        if name not in found or found[name] != value:
            _refuse(value, f"{shorten(repr(value))} for {name}, which is not the same when it is read as text")
    return text


def _write(values: Mapping[str, Value]) -> str:
    words = {value: word for word, value in _WORDS.items()}

    def word(value: Value) -> str:
        return words[value] if value is None or isinstance(value, bool) else str(value)

    return ",".join(f"{name}={word(values[name])}" for name in sorted(values))


def _value(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if not _FLOAT.fullmatch(text):
        return text
    if not math.isfinite(number := float(text)):
        _refuse(text, f"{shorten(text)}, which is too large")
    return number


def _refuse(value: object, got: str = "") -> NoReturn:
    rule = "$model_options must be names and values, such as width=32,depth=2"
    raise RuleError("model_options", rule, got or shorten(repr(value)))
