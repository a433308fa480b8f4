"""Configurations as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError, UserError, plain, shorten
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.files import FORMAT, read_bytes

SOURCE_KEY = "model_source"  # the digest of an own model's source, in config.yaml, result.json and checkpoints
MAX_CONFIG_BYTES = 2**16
_NAMES_AND_VALUES = "must hold names and values, lines such as 'lag: 3'"
_MAX_NAMES = 1000
_MAX_CHARACTERS = 4096  # of a name or a value: no path is longer


def read_yaml(path: str | Path, *, nested: str | None = None, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """A flat mapping from a YAML file, read in a time and a memory that no file can make large.

    Args:
        path: The file.
        nested: The one name that may stand for a mapping of names to a value or a list of values each.
        max_bytes: How large it may be.

    Raises:
        UserError: If the file cannot be read, is not YAML, or holds more than names with a value each.
    """
    import yaml

    try:
        text = read_bytes(path, max_bytes).decode()
        return _flat_mapping(yaml.SafeLoader(text), str(path), nested)
    except OSError as error:
        raise UserError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise UserError(f"{str(path)!r} is not valid YAML{where}; write lines such as 'lag: 3'.") from None


def _flat_mapping(loader: Any, path: str, nested: str | None) -> dict[str, Any]:
    """Read event by event: `safe_load` makes all that a file nests and repeats before it can be refused."""
    import yaml

    loader.get_event()  # the stream begins
    begin = loader.get_event()
    if not loader.check_event(yaml.MappingStartEvent):
        value = None if isinstance(begin, yaml.StreamEndEvent) else _next_value(loader, path)
        raise _refused(path, _NAMES_AND_VALUES, _kind(value))
    _next_value(loader, path)
    values: dict[str, Any] = {}
    for _ in range(_MAX_NAMES):
        if loader.check_event(yaml.MappingEndEvent):
            _check_end(loader)
            return values
        name = _next_value(loader, path)
        if not isinstance(name, str):
            raise _refused(path, _NAMES_AND_VALUES, f"{_kind(name)} in the place of a name")
        if name == nested and loader.check_event(yaml.MappingStartEvent):
            values[name] = _lists(loader, path)
            continue
        value = _next_value(loader, path)
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise _refused(path, "must give each name one value", f"a {_kind(value)} for {shorten(name)!r}")
        values[name] = value
    raise UserError(f"{path!r} must hold fewer than {_MAX_NAMES:,} names, because there are not so many options.")


def _lists(loader: Any, path: str) -> dict[str, Any]:
    """A mapping whose values are lists, or single values, that hold nothing else."""
    import yaml

    loader.get_event()  # the mapping begins
    lists: dict[str, Any] = {}
    while not loader.check_event(yaml.MappingEndEvent):
        name = _next_value(loader, path)
        if not isinstance(name, str):
            raise _refused(path, _NAMES_AND_VALUES, f"{_kind(name)} in the place of a name")
        lists[name] = _list(loader, path, name)
    loader.get_event()
    return lists


def _list(loader: Any, path: str, name: str) -> list[Any]:
    import yaml

    values: list[Any] = []
    is_list = loader.check_event(yaml.SequenceStartEvent)
    if is_list:
        loader.get_event()
    while not values if not is_list else not loader.check_event(yaml.SequenceEndEvent):
        values.append(_next_value(loader, path))
        if isinstance(values[-1], (list, dict)):
            raise _refused(path, "must give each name a list of values", f"a {_kind(values[-1])} for {shorten(name)!r}")
    if is_list:
        loader.get_event()
    return values


def _check_end(loader: Any) -> None:
    import yaml

    loader.get_event()  # of the mapping
    loader.get_event()  # of the document
    after = loader.get_event()
    if not isinstance(after, yaml.StreamEndEvent):
        raise _invalid(after)


def _next_value(loader: Any, path: str) -> Any:
    """What comes next; of a list or a mapping an empty one, as it is refused whatever it holds.

    Raises:
        UserError: If it stands for more than its own characters, or has too many.
        yaml.YAMLError: If it is not what its tag says.
    """
    import yaml

    event = loader.get_event()
    if isinstance(event, yaml.CollectionStartEvent):
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise _invalid(event)
        return [] if isinstance(event, yaml.SequenceStartEvent) else {}
    where = f"{path!r} line {event.start_mark.line + 1}"
    if isinstance(event, yaml.AliasEvent):
        raise UserError(
            f"{where}: every value must be written out, because a few aliases can stand for more than the memory "
            f"holds. Got {shorten(f'*{event.anchor}')!r}; write the value in its place."
        )
    if len(event.value) > _MAX_CHARACTERS:
        raise UserError(
            f"{where}: a name or a value must have at most {_MAX_CHARACTERS:,} characters, because no option needs "
            f"more. Got {len(event.value):,}."
        )
    return _scalar(loader, event)


def _scalar(loader: Any, event: Any) -> Any:
    """A single value as `safe_load` makes it."""
    import yaml

    is_plain = event.tag in (None, "!")
    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit) if is_plain else event.tag
    try:
        return loader.construct_object(yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark))
    # PyYAML raises any of these: for a 99th day, for base 60 beyond all floats, for `!!bool x` and `!!timestamp x`.
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError):
        raise _invalid(event) from None


def _invalid(event: Any) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem_mark=event.start_mark)


def _refused(path: str, rule: str, got: str) -> UserError:
    return UserError(f"{path!r} {rule}. Got {got}.")


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__  # not the value, which may be long


def check_format(found: object, what: str, way_out: str = "train the run anew") -> None:
    """Refuse files of another format.

    Args:
        found: Their format; None where they say none.
        what: Whose it is, for the error.
        way_out: What to do.

    Raises:
        UserError: If it is not this program's.
    """
    if found != FORMAT:
        raise UserError(
            f"{what} is of another version of this program, which wrote other files (format "
            f"{shorten(found or 'unknown')}, here {FORMAT}); {way_out}."
        )


def names_own_model(values: Mapping[str, Any]) -> bool:
    """Whether the options of a file name a class of a user's own."""
    return isinstance(values.get("model"), str) and is_own_model(values["model"])


def check_said(path: str | Path, named: str, said: str | None) -> None:
    """Refuse the model that a file names, unless whoever reads the file names it too.

    Args:
        path: The file, for the error.
        named: The model in it.
        said: The one that was given beside the file; None: none was, which will do for the networks here.

    Raises:
        RuleError: If they differ.
    """
    if said == named or (said is None and not is_own_model(named)):
        return
    file, got = plain(repr(str(path))), "" if said is None else said
    if is_own_model(named):
        rule = f"$model must repeat {plain(named)}, the class that {file} names"
        reason, way_out = "because nothing that a file or directory names is run by itself", "if it is to be run"
        raise RuleError("model", rule, got, reason=reason, way_out=f"give $model {plain(named)} {way_out}")
    raise RuleError("model", f"$model must be {plain(named)}, the model in {file}", got, way_out="leave it out")


def read_options(path: str | Path) -> dict[str, Any]:
    """The mode and options in a YAML file of a person's own, or in the config.yaml of a run.

    Raises:
        UserError: As `read_yaml`, or if it says that it is of another format.
    """
    values = read_yaml(path)
    check_format(values.pop("format", FORMAT), repr(str(path)), "leave the format out to have the options read")
    if names_own_model(values):
        values.pop(SOURCE_KEY, None)  # of the run that wrote it; another one has the source that is there now
    return values


def to_yaml(configuration: Configuration, model_source: str | None = None) -> str:
    """The configuration as YAML that `--config` takes back.

    Args:
        configuration: Of a run.
        model_source: The digest of its own model's source; None: it has none.
    """
    import yaml

    source = {} if model_source is None else {SOURCE_KEY: model_source}
    # The C writer takes a sixth of the time, where PyYAML was built with it.
    writer = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump({"format": FORMAT, **configuration.to_dict(), **source}, Dumper=writer, sort_keys=False)
    return text
