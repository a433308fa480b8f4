"""What a run directory holds, and how it is read back."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_torch.errors import RuleError, UserError, plain
from echo_torch.experiments.configuration import Configuration, configure_saved
from echo_torch.files import (
    FORMAT,
    PREVIOUS,
    Place,
    make_directory,
    open_regular,
    read_bytes,
    remove_unfinished,
    write_text,
)
from echo_torch.lab.locks import locked
from echo_torch.lab.pictures import forms_of
from echo_torch.lab.yaml_files import SOURCE_KEY, check_format, check_said, names_own_model, read_yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


PAGE = "report.html"
_MAX_ROW_BYTES = 4096  # of a table; a row has six numbers
_MAX_RESULT_BYTES = 2**26  # a line for each chunk that is told apart


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    >>> RunDirectory(Path("runs/lag-seed1")).metrics.as_posix()
    'runs/lag-seed1/metrics.csv'

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
    def validation(self) -> Path:
        """A row every `validate_every` updates, CSV with the columns of metrics.csv."""
        return self.path / "validation.csv"

    @property
    def checkpoint(self) -> Path:
        """The latest checkpoint, Lightning's format; beside it lies the one before, previous.ckpt."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def curve(self) -> Path:
        """Loss and accuracy over the training, a picture; curve.svg is the same in the other form."""
        return self.path / "curve.png"

    @property
    def page(self) -> Path:
        """The page that `report` writes, HTML."""
        return self.path / PAGE

    @property
    def result(self) -> Path:
        """What came out, JSON. A run that has it is finished."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Why one of many runs ended before its time, JSON."""
        return self.path / "failure.json"

    @property
    def files(self) -> list[Path]:
        """All files that a training writes there, those of TensorBoard left out, and the page about it."""
        previous = self.checkpoint.with_name(PREVIOUS)
        return [
            self.config,
            self.metrics,
            self.validation,
            self.checkpoint,
            previous,
            *forms_of(self.curve.with_suffix("")),
            self.page,
            self.failure,
            self.result,
        ]

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
            path = next(candidate for candidate in _names(name) if not os.path.lexists(candidate))
        run = cls(Path(path))
        run.check_free()
        return run

    @classmethod
    @contextlib.contextmanager
    def taken(cls, name: str) -> Iterator[RunDirectory]:
        """The first free place of `new`, made at once, so that of two at the same instant each gets its own.

        Args:
            name: As of `new`.

        Yields:
            The place; it is removed again where nothing was put there.

        Raises:
            UserError: If none can be made.
        """
        missing = [path for path in (Path("runs"),) if not path.exists()]
        for path in _names(name):
            try:
                path.parent.mkdir(exist_ok=True)
                path.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise cannot_use(path, error) from None
            break
        try:
            yield cls(path)
        finally:
            with contextlib.suppress(OSError):  # it holds something
                for one in (path, *missing):
                    one.rmdir()

    def check_free(self) -> None:
        """Refuse a directory that holds files or cannot be made.

        Raises:
            UserError: If there is something in the way.
        """
        try:
            _check_free(self.path)
        except OSError as error:
            raise cannot_use(self.path, error) from None

    def create(self) -> None:
        """Make the directory.

        Raises:
            UserError: If it cannot be made or written to.
        """
        try:
            make_directory(self.checkpoint.parent)
        except (OSError, ValueError) as error:
            raise cannot_use(self.path, error) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[Place]:
        """Keep other processes from training into the same directory; a lock dies with its process.

        Yields:
            The directory, to be told from another that gets its name later.

        Raises:
            UserError: If another process does so already.
        """
        with self._locked(self.path) as is_locked:
            if not is_locked:
                raise UserError(f"Another process is training in {str(self.path)!r}; wait for it.")
            yield Place.of(self.path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that writes the files, once another has ended that wrote for a training that was killed.

        Raises:
            UserError: If that does not end.
        """
        with self._locked(self.checkpoint.parent) as is_locked:
            if not is_locked:
                raise UserError(f"A process of an earlier training still writes into {str(self.path)!r}; end it first.")
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            try:
                is_locked = stack.enter_context(locked(path))
            except OSError as error:
                raise cannot_use(self.path, error) from None
            yield is_locked

    def rows_up_to(
        self, updates: int, log_every: int, validate_every: int | None, *, is_complete: bool
    ) -> dict[Path, str]:
        """What the tables held when a checkpoint was written, but for the row of a rest where that was taken back.

        Args:
            updates: Made when the checkpoint was written; 0: it begins anew.
            log_every: Updates per row of metrics.csv.
            validate_every: Updates per row of validation.csv; None: there is none.
            is_complete: Whether the training ends there. If not, the row of a rest is dropped: a longer one has none.

        Returns:
            The text of each table, "" where it had no row yet.

        Raises:
            UserError: If a row is missing.
        """
        rows = {self.metrics: _rows_up_to(self.metrics, updates, log_every, with_rest=is_complete)}
        if validate_every is not None:
            rows[self.validation] = _rows_up_to(self.validation, updates, validate_every, with_rest=False)
        return rows

    def last_update(self) -> int:
        """How far the training is, by the last row of its metrics; 0 where there is none."""
        try:
            with open_regular(self.metrics) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 200))
                return int(file.read(200).splitlines()[-1].split(b",")[0])
        except (OSError, ValueError, IndexError):
            return 0

    def cut_back(self, rows: Mapping[Path, str]) -> None:
        """Leave only these rows in the tables. An older result stays until there is a new one; the page goes."""
        self.page.unlink(missing_ok=True)
        for file in self.files:
            remove_unfinished(file)  # what a killed process left
        for path, text in rows.items():
            if text:
                write_text(path, text)
            else:
                path.unlink(missing_ok=True)

    def read_config(self, model: str | None = None) -> Configuration:
        """The configuration of the run.

        Args:
            model: The model again, where it is a class of a user's own: nothing that a directory names is run by
                itself. None will do for the networks here.

        Raises:
            RuleError: If it is another one, or missing.
            UserError: If there is no configuration, or it is not one, or of another format.
        """
        configuration, _ = self.read_saved()
        check_said(self.config, configuration.model, model)
        return configuration

    def read_saved(self) -> tuple[Configuration, str | None]:
        """What config.yaml says, to compare with or to show: (configuration, digest of its own model's source).

        Raises:
            UserError: As `read_config`.
        """
        if not self.config.exists():
            raise RuleError("run", "$run must be the directory of a finished run", f"{str(self.path)!r}, which is none")
        values = read_yaml(self.config)
        check_format(values.pop("format", None), repr(str(self.config)))
        source = values.pop(SOURCE_KEY, None) if names_own_model(values) else None
        try:
            return configure_saved(values), source
        except TypeError as error:  # there is no mode
            raise UserError(f"{str(self.config)!r} is not the configuration of a run: {error}.") from None
        except RuleError as error:
            sentence = error.wording(lambda name: name)
            raise UserError(f"{str(self.config)!r} is not the configuration of a run: {sentence}") from None

    def read_metrics(self) -> dict[str, list[float]]:
        """The columns of metrics.csv; an empty cell is nan.

        Raises:
            UserError: If it cannot be read or is not such a table.
        """
        return _read_table(self.metrics)

    def read_validation(self) -> dict[str, list[float]] | None:
        """The columns of validation.csv; None where the run had no validations.

        Raises:
            UserError: As `read_metrics`.
        """
        return _read_table(self.validation) if self.validation.exists() else None

    def read_result(self) -> dict[str, Any]:
        """What result.json holds.

        Raises:
            FileNotFoundError: If there is none.
            UserError: If it cannot be read or holds something else.
        """
        try:
            result = json.loads(read_bytes(self.result, _MAX_RESULT_BYTES))
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{str(self.result)!r} cannot be read ({reason}); move it away to do the run again."
            ) from None
        except (ValueError, RecursionError):
            result = None
        if not isinstance(result, dict):
            raise damaged_error(self)
        return result

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, by which the run is finished."""
        write_text(self.result, json.dumps(result, indent=2) + "\n")

    def write_failure(self, seed: int, update: int, reason: str) -> None:
        """Write failure.json: why the run has ended before its time, a sentence, and at which update."""
        failure = {"format": FORMAT, "seed": seed, "update": update, "reason": reason}
        write_text(self.failure, json.dumps(failure, indent=2) + "\n")


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """A fingerprint of weights: equal exactly where every weight is.

    Args:
        state_dict: Tensors by name.

    Returns:
        SHA-256, in hex, over the entries sorted by name: name, NUL, dtype, NUL, shape as JSON, NUL, values as
        little-endian bytes in C order; of a complex number the real part first.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        dtype, values = _as_numpy(state_dict[name])
        header = f"{name}\0{dtype}\0{json.dumps(list(values.shape))}\0"
        digest.update(header.encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _as_numpy(weights: Tensor) -> tuple[str, NDArray[Any]]:
    """The name of their type, and their values; of a type that numpy has not, such as bfloat16, their bits."""
    values = weights.detach().cpu().resolve_conj().resolve_neg().contiguous()
    try:
        numbers: NDArray[Any] = values.numpy()
    except TypeError:
        import torch

        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[values.itemsize]
        return str(values.dtype).removeprefix("torch."), values.view(bits).numpy()
    return str(numbers.dtype), numbers


def check_new_file(path: str | Path, name: str) -> None:
    """Refuse to overwrite a file, or to write one where no directory is.

    Args:
        path: The file.
        name: Of the argument that names it.

    Raises:
        RuleError: If the file exists or its directory does not.
    """
    path = Path(path)
    if os.path.lexists(path):
        got = f"{str(path)!r}, which exists"
        raise RuleError(name, f"${name} must name a new file", got, reason="because none is overwritten")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise RuleError(name, f"${name} must name a file in a directory that can be written to", repr(str(path)))


def _read_table(path: Path) -> dict[str, list[float]]:
    """The columns of a table as `MetricsTable` writes it; an empty cell is nan.

    Raises:
        UserError: If it cannot be read or is none.
    """
    columns: dict[str, list[float]] = {}
    number = 1
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(partial(file.readline, _MAX_ROW_BYTES), b""), start=1):
                cells = _cells(line)
                if number == 1:
                    columns = {name: [] for name in cells}
                    continue
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.append(float(cell or "nan"))
    except OSError as error:
        raise UserError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from None
    except ValueError:
        raise UserError(
            f"{str(path)!r} was cut or altered: line {number} is not one of the table that a run writes. Do the run "
            "again."
        ) from None
    return columns


def _cells(line: bytes) -> list[str]:
    text = line.decode()
    if not text.endswith("\n"):  # it was cut, or is longer than any that is written
        raise ValueError
    return text.strip().split(",")


def _rows_up_to(path: Path, updates: int, every: int, *, with_rest: bool) -> str:
    """The header and the row of every so many updates, and of the rest where it is there, as they stand in a table.

    Raises:
        UserError: If one of every so many is missing.
    """
    full = ["update", *(str(update) for update in range(every, updates + 1, every))]
    try:
        with open_regular(path) as file:
            lines = [file.readline(_MAX_ROW_BYTES).decode() for _ in range(len(full) + 1)]
    except (OSError, ValueError):
        lines = []
    found = [line.split(",")[0] for line in itertools.takewhile(lambda line: line.endswith("\n"), lines)]
    if len(full) > 1 and found[: len(full)] != full:
        raise UserError(
            f"{str(path)!r} does not hold the rows up to update {updates}, where the checkpoint is, so it was changed "
            "or lost and the run cannot be continued.",
            "Begin anew with another $run.",
        )
    has_rest = with_rest and updates % every > 0 and found == [*full, str(updates)]
    rows = lines[: len(full) + has_rest]
    return "".join(rows) if len(rows) > 1 else ""


def _names(name: str) -> Iterator[Path]:
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"


def _check_free(path: Path) -> None:
    if path.is_dir():
        if not all(entry.is_dir() for entry in path.rglob("*")):
            raise RuleError(
                "run",
                "$run must be new or empty",
                f"{str(path)!r}, which holds files",
                reason="because a finished run is never overwritten",
                way_out="choose another name, or continue a run with $resume auto",
            )
        parent = path
    elif os.path.lexists(path):
        raise RuleError("run", "$run must be a directory", f"{str(path)!r}, which is {_kind(path)}")
    else:
        parent = next(ancestor for ancestor in path.absolute().parents if ancestor.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        reason = "is not writable" if parent.is_dir() else f"is {_kind(parent)}"
        raise RuleError("run", f"$run cannot be made there: {plain(repr(str(parent)))} {reason}", repr(str(path)))


def _kind(path: Path) -> str:
    """What stands where a directory should."""
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    return "a file" if path.is_file() else "no directory"


def damaged_error(run: RunDirectory, why: str = "") -> UserError:
    """The error of a finished run that cannot be read back.

    Args:
        run: Its directory.
        why: What is wrong with it, a clause; empty: the sentence does without.
    """
    reason = f": {why}" if why else ""
    return UserError(f"The finished run {str(run.path)!r} is damaged{reason}; move it away to do it again.")


def cannot_use(path: str | Path, error: Exception) -> RuleError:
    """The error of a directory that the system refuses."""
    reason = getattr(error, "strerror", None) or str(error)
    return RuleError("run", f"$run cannot be used: {plain(reason)}", repr(str(path)))
