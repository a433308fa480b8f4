"""The options of a run, each declared once: its type, bounds, default, help and the reason of its bounds."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from echo_torch.errors import RuleError, shorten
from echo_torch.experiments.model_options import Value, canonical_model_options
from echo_torch.experiments.other_words import suggest_choice

ONE_HOT_UP_TO = 1_000  # symbols: beyond, an update takes longer than with digits, four times at 1,000


@dataclass(frozen=True)
class Option:
    """One number or word of a configuration, and the flag of the same name.

    Attributes:
        name: Field of the configuration or of its reading, key in YAML; the flag is `--name` with hyphens.
        kind: int, float, bool or str.
        default: Its value where an experiment says nothing else.
        group: Heading in the help.
        help: What it is, in a line.
        low: Smallest value allowed.
        high: Largest value allowed.
        choices: The words allowed.
        reason: Why the bounds are where they are.
        is_optional: Whether it may be absent, None.
        form: What a word beside the choices looks like, a regular expression; "": there is none.
        form_in_words: The same in words, as a way out.
        canonical: Checks a value that has a form of its own, and gives it that form; None: the type and bounds do.
    """

    name: str
    kind: type
    default: Value
    group: str
    help: str
    low: int | float = -math.inf
    high: int | float = math.inf
    choices: tuple[str, ...] = ()
    reason: str = ""
    is_optional: bool = False
    form: str = ""
    form_in_words: str = ""
    canonical: Callable[[object], Value] | None = None

    @property
    def flag(self) -> str:
        """The flag, as typed."""
        return "--" + self.name.replace("_", "-")

    def words(self, value: Value) -> list[str]:
        """What is typed for a value; nothing where the flag is left out.

        >>> OPTIONS["lag"].words(3), OPTIONS["stagger"].words(True), OPTIONS["data"].words("-x.txt")
        (['--lag', '3'], ['--stagger'], ['--data=-x.txt'])
        """
        if self.kind is bool:
            return [self.flag] if value else []
        return [] if value is None else words_of(self.flag, value)

    def check(self, value: object) -> Value:
        """A value in this option's type.

        Args:
            value: A number or word, or the text of one.

        Returns:
            The value; None stays None where the option may be absent.

        Raises:
            RuleError: If it breaks a rule.
        """
        if value is None and self.is_optional:
            return None
        if self.canonical is not None:
            return self.canonical(value)
        if self.kind is str:
            return self._check_word(value)
        if self.kind is bool:
            if not isinstance(value, bool):
                raise RuleError(self.name, f"${self.name} must be true or false", repr(value))
            return value
        return self._check_number(value)

    def _check_word(self, value: object) -> str:
        if not self.choices:
            if not isinstance(value, str) or not value or "\0" in value:
                raise RuleError(self.name, f"${self.name} must be a name", shorten(repr(value)))
            return value
        has_form = bool(self.form) and isinstance(value, str) and re.fullmatch(self.form, value)
        if value not in self.choices and not has_form:
            rule = f"${self.name} must be one of {', '.join(self.choices)}"
            got = f"{shorten(repr(value))}{suggest_choice(self.name, value, self.choices)}"
            raise RuleError(self.name, rule, got, way_out=self.form_in_words)
        return str(value)

    def _check_number(self, value: object) -> int | float:
        article = "a whole number" if self.kind is int else "a number"
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError
            if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value):
                raise ValueError
            number = _parse_int(value) if self.kind is int else float(value)
        except (ValueError, OverflowError):
            raise RuleError(self.name, f"${self.name} must be {article}", shorten(repr(value))) from None
        if not self.low <= number <= self.high:  # also false for nan
            low, high = (int(bound) if self.kind is int else bound for bound in (self.low, self.high))
            reason = f"because {self.reason}" if self.reason else ""
            rule = f"${self.name} must be {article} between {low} and {high}"
            raise RuleError(self.name, rule, shorten(value), reason=reason)
        return number


def _parse_int(value: int | float | str) -> int:
    if isinstance(value, float):
        raise ValueError
    return int(value)


# Python's own int and float also take underscores and digits of other scripts, which a person did not mean.
_PLAIN_NUMBER = re.compile(r"\s*[-+]?[0-9a-z.]+([-+][0-9]+)?\s*", re.ASCII | re.IGNORECASE)
_BIG = 10**12
_SEED_MAX = 2**63 - 1
_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
KERNELS = ("auto", "autograd", "direct")
# In the order in which they stand in the help and in a YAML file.
OPTIONS = {
    option.name: option
    for option in (
        Option("seed", int, 1, "data", "which random data and first weights", 0, _SEED_MAX, reason="it has 63 bits"),
        Option(
            "sequences", int, 2000, "training",
            "train on so many fresh sequences, of which each is an epoch of the tutorial", 1, _BIG, is_optional=True,
        ),
        Option("updates", int, None, "training", "train for so many updates", 1, _BIG, is_optional=True),
        Option("length", int, 25, "data", "steps in a sequence", 1, 10**6, reason="one sequence is held in memory"),
        Option(
            "vocabulary_size", int, 100, "data", "different symbols, 0..n-1", 2, 2**31,
            reason="a symbol has 31 bits",
        ),
        Option("lag", int, 1, "data", "the target is the symbol so many steps ago", 0, 10**6),
        Option("window", int, 5, "data", "steps per window", 1, 10**6),
        Option("batch_size", int, 5, "data", "consecutive windows per batch", 1, 10**6),
        Option("lanes", int, 32, "data", "sequences read side by side, each in its own row", 1, 10**6),
        Option("chunk", int, 5, "data", "steps that a lane reads per update", 1, 10**6),
        Option("data", str, None, "data", "train on the numbers of this text or CSV file", is_optional=True),
        Option("column", str, None, "data", "the column of a CSV file that holds the numbers", is_optional=True),
        Option(
            "series", str, None, "data", "the column of a CSV file that tells independent series apart",
            is_optional=True,
        ),
        Option(
            "missing", float, 0.0, "data", "share of the symbols that cannot be read; their echo is asked all the same",
            0, 0.99, reason="some symbol must be left",
        ),
        Option(
            "reset_every", int, None, "state", "steps after which a lane begins a new sequence", 1, 10**6,
            is_optional=True,
        ),
        Option("stagger", bool, False, "state", "let the lanes reset at different chunks"),
        Option(
            "model", str, "lstm", "model",
            "the network: recurrent, or one that sees a window, or the current symbol alone; or a class of your own, "
            "package.module:Class",
            choices=("lstm", "gru", "rnn", "mlp", "memoryless"), form=f"{_DOTTED}:{_DOTTED}",
            form_in_words="a model of your own is written package.module:Class",
        ),
        Option(
            "model_options", str, None, "model", "arguments of your own model, such as width=32,depth=2",
            is_optional=True, canonical=canonical_model_options,
        ),
        Option("hidden_size", int, 50, "model", "width of the state, or of the MLP's hidden layer", 1, 10**5),
        Option("layers", int, 1, "model", "recurrent layers", 1, 1000),
        Option(
            "mlp_window", int, None, "model", "symbols that the MLP sees, the current one among them (default: 5)",
            1, 10**4, is_optional=True,
        ),
        Option(
            "encoding", str, None, "model",
            f"a symbol as one vector, or as digits (default: one-hot up to {ONE_HOT_UP_TO:,} symbols)",
            choices=("one-hot", "digits"), is_optional=True,
        ),
        Option("base", int, None, "model", "values that a digit can have (default: 10)", 2, 10**4, is_optional=True),
        Option(
            "init", str, "torch", "model", "first weights as PyTorch or as Keras draws them",
            choices=("torch", "keras"),
        ),
        Option(
            "learning_rate", float, 1e-3, "training", "Adam's step size", 1e-12, 1e3,
            reason="outside these bounds nothing is learned",
        ),
        Option(
            "clip_norm", float, None, "training", "scale longer gradients down to this norm", 1e-12, 1e12,
            is_optional=True,
        ),
        Option(
            "carry", str, "keep", "state", "hand the state to the next batch, or reset it", choices=("keep", "reset")
        ),
        Option(
            "cut", str, "chunk", "state", "where gradients are cut: at every chunk, or only where a sequence ends",
            choices=("chunk", "sequence"),
        ),
        Option("accelerator", str, "auto", "machine", "where to train", choices=("auto", "cpu", "cuda")),
        Option(
            "kernel", str, "auto", "machine",
            "how a gradient is computed: by autograd, or directly, by formulas derived by hand, which is faster; auto "
            "takes those where they cover the other options",
            choices=KERNELS,
        ),
        Option("devices", int, 1, "machine", "processes that share the lanes", 1, 1024),
        Option("workers", int, 0, "machine", "loader processes; 0: make data in this one", 0, 256),
        Option("threads", int, 1, "machine", "CPU threads; one is fastest at these sizes", 1, 1024),
        Option(
            "validate_every", int, None, "training",
            "evaluate after so many updates, a row of validation.csv each", 1, _BIG, is_optional=True,
        ),
        Option("log_every", int, 100, "output", "updates per row of metrics.csv", 1, _BIG),
        Option("checkpoint_every", int, 500, "output", "updates per checkpoint", 1, _BIG),
        Option("tensorboard", bool, False, "output", "write TensorBoard's files too"),
    )
}  # fmt: skip


def words_of(flag: str, value: object) -> list[str]:
    """A flag and its value as they are typed."""
    text = str(value)
    # One that looks like a flag is read as one, unless it stands behind an equals sign.
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def is_own_model(model: str) -> bool:
    """Whether a model is a class of the user's own, and not one of the words."""
    return ":" in model


def option(name: str) -> Any:
    """A dataclass field that holds an option, with the option's default."""
    return dataclasses.field(default=OPTIONS[name].default)


def option_names(kind: type) -> list[str]:
    """Which fields of a dataclass are options."""
    return [field.name for field in dataclasses.fields(kind) if field.name in OPTIONS]


def steps_in_words(number: int) -> str:
    """'1 step', '2 steps'."""
    return f"{number} step{'' if number == 1 else 's'}"
