"""What a run directory holds, and how it is read back."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_torch.experiments import Configuration, configure, in_flags
from echo_torch.files import UserError, write_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
        path: The directory, a Path or a string.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # a plain string is welcome

    @property
    def config(self) -> Path:
        """The configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A row every `log_every` updates, CSV."""
        return self.path / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        """The latest checkpoint, Lightning's format."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def curve(self) -> Path:
        """Loss and accuracy over the training, a picture."""
        return self.path / "curve.png"

    @property
    def result(self) -> Path:
        """What came out, JSON. A run that has it is finished."""
        return self.path / "result.json"

    @classmethod
    def new(cls, path: str | Path | None, name: str) -> RunDirectory:
        """A place for a new run; nothing is made yet.

        Args:
            path: Where; None: the first free one of runs/name, runs/name-2, runs/name-3, ...
            name: Used when `path` is None.

        Raises:
            UserError: If there is something in the way.
        """
        if path is None:
            number, candidate = 2, Path("runs") / name
            while os.path.lexists(candidate):
                number, candidate = number + 1, Path("runs") / f"{name}-{number}"
            path = candidate
        path = Path(path)
        try:
            _check_free(path)
        except OSError as error:
            raise UserError(_cannot_use(path, error)) from None
        return cls(path)

    def create(self) -> None:
        """Make the directory.

        Raises:
            UserError: If it cannot be made or written to.
        """
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise UserError(_cannot_use(self.path, error)) from None

    def read_config(self) -> Configuration:
        """The configuration of the run.

        Raises:
            UserError: If there is none, or it is not one.
        """
        if not self.path.is_dir():
            raise UserError(f"--run must be the directory of a finished run. Got {str(self.path)!r}, which is none.")
        values = read_yaml(self.config)
        try:
            return configure(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.config} is not the configuration of a run: {in_flags(str(error))}") from None

    def read_metrics(self) -> dict[str, list[float]]:
        """The columns of metrics.csv; an empty cell is nan."""
        with self.metrics.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())}

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, by which the run is finished."""
        write_text(self.result, json.dumps(result, indent=2) + "\n")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        UserError: If the file cannot be read, is not YAML, or is no mapping.
    """
    import yaml

    try:
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
    return values


def to_yaml(configuration: Configuration) -> str:
    """The configuration as YAML that `--config` takes back."""
    import yaml

    text: str = yaml.safe_dump(configuration.to_dict(), sort_keys=False)
    return text


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """A fingerprint of weights: equal exactly where every weight is.

    Args:
        state_dict: Tensors by name.

    Returns:
        SHA-256, in hex, over the entries sorted by name: name, NUL, dtype, NUL, shape as JSON, NUL, values as
        little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        values = state_dict[name].detach().cpu().contiguous().numpy()
        header = f"{name}\0{values.dtype}\0{json.dumps(list(values.shape))}\0"
        digest.update(header.encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def check_new_file(path: str | Path, flag: str) -> None:
    """Refuse to overwrite a file, or to write one where no directory is.

    Raises:
        UserError: If the file exists or its directory does not.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise UserError(f"{flag} must name a new file, because none is overwritten. Got {str(path)!r}, which exists.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag} must name a file in a directory that can be written to. Got {str(path)!r}.")


def _check_free(path: Path) -> None:
    if path.is_dir():
        if any(path.iterdir()):
            raise UserError(
                f"--run-dir must be new or empty, because a finished run is never overwritten. Got {str(path)!r}, "
                "which holds files; choose another name."
            )
        parent = path
    elif os.path.lexists(path):
        raise UserError(f"--run-dir must be a directory. Got {str(path)!r}, which is a file.")
    else:
        parent = next(ancestor for ancestor in path.absolute().parents if ancestor.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        reason = "is not writable" if parent.is_dir() else "is a file"
        raise UserError(f"--run-dir cannot be made there: {str(parent)!r} {reason}. Got {str(path)!r}.")


def _cannot_use(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"--run-dir cannot be used: {reason}. Got {str(path)!r}."
