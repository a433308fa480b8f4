"""Configurations as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError, UserError, plain
from echo_torch.experiments.configuration import Configuration
from echo_torch.experiments.options import is_own_model
from echo_torch.files import FORMAT, check_regular

SOURCE_KEY = "model_source"  # the digest of an own model's source, in config.yaml, result.json and checkpoints
_MAX_CONFIG_BYTES = 2**20


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        UserError: If the file cannot be read, is not YAML, or is no mapping.
    """
    import yaml

    try:
        check_regular(path, _MAX_CONFIG_BYTES)
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise UserError(f"{str(path)!r} is not valid YAML{where}; write lines such as 'lag: 3'.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(
            f"{str(path)!r} must hold names and values, lines such as 'lag: 3'. Got {type(values).__name__}."
        )
    for name, value in values.items():
        # Not shown: a few bytes of YAML can stand for more text than the memory holds.
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise UserError(f"{str(path)!r} must give each name one value. Got a {type(value).__name__} for {name!r}.")
    return values


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
            f"{what} is of another version of this program, which wrote other files (format {found or 'unknown'}, here "
            f"{FORMAT}); {way_out}."
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
    text: str = yaml.safe_dump({"format": FORMAT, **configuration.to_dict(), **source}, sort_keys=False)
    return text
