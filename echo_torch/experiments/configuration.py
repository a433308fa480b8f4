"""The named experiments, as data: a configuration for each, its claim, and the rules its numbers obey.

Nothing heavy is imported here, so that flags can be explained and refused at once.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = "str | int | float | bool | None"

MAX_PARAMETERS = 200_000_000  # with Adam's two moments and the gradients 3.2 GB
ONE_HOT_UP_TO = 1_000  # symbols: beyond, an update takes longer than with digits, four times at 1,000
MAX_CHUNK_NUMBERS = 200_000_000  # activations of one chunk kept for the gradient, 0.8 GB


@dataclass(frozen=True)
class Option:
    """One number or word of a configuration, and the flag of the same name.

    Attributes:
        name: Field of the configuration, key in YAML; the flag is `--name` with hyphens.
        kind: int, float, bool or str.
        group: Heading in the help.
        help: What it is, in a line.
        low: Smallest value allowed.
        high: Largest value allowed.
        choices: The words allowed.
        reason: Why the bounds are where they are.
        is_optional: Whether it may be absent, None.
    """

    name: str
    kind: type
    group: str
    help: str
    low: int | float = -math.inf
    high: int | float = math.inf
    choices: tuple[str, ...] = ()
    reason: str = ""
    is_optional: bool = False

    @property
    def flag(self) -> str:
        """The flag, as typed."""
        return "--" + self.name.replace("_", "-")


_BIG = 10**12
_SEED_MAX = 2**63 - 1
OPTIONS = {
    option.name: option
    for option in (
        Option("seed", int, "data", "which random data and first weights", 0, _SEED_MAX, reason="it has 63 bits"),
        Option("sequences", int, "training", "train on so many fresh sequences", 1, _BIG, is_optional=True),
        Option("updates", int, "training", "or: train for so many updates", 1, _BIG, is_optional=True),
        Option("length", int, "data", "steps in a sequence", 1, 10**6, reason="one sequence is held in memory"),
        Option("vocabulary_size", int, "data", "different symbols, 0..n-1", 2, 2**31, reason="a symbol has 31 bits"),
        Option("lag", int, "data", "the target is the symbol so many steps ago", 0, 10**6),
        Option("window", int, "data", "steps per window", 1, 10**6),
        Option("batch_size", int, "data", "consecutive windows per batch", 1, 10**6),
        Option("lanes", int, "data", "sequences read side by side, each in its own row", 1, 10**6),
        Option("chunk", int, "data", "steps that a lane reads per update", 1, 10**6),
        Option("data", str, "data", "train on the numbers of this text or CSV file", is_optional=True),
        Option("column", str, "data", "the column of a CSV file that holds the numbers", is_optional=True),
        Option("series", str, "data", "the column of a CSV file that tells independent series apart", is_optional=True),
        Option(
            "missing", float, "data", "share of the symbols that cannot be read; their echo is asked all the same",
            0, 0.99, reason="some symbol must be left",
        ),
        Option(
            "reset_every", int, "state", "steps after which a lane begins a new sequence", 1, 10**6, is_optional=True
        ),
        Option("stagger", bool, "state", "let the lanes reset at different chunks"),
        Option(
            "model", str, "model", "the network: recurrent, or one that sees a window, or the current symbol alone",
            choices=("lstm", "gru", "rnn", "mlp", "memoryless"),
        ),
        Option("hidden_size", int, "model", "width of the state, or of the MLP's hidden layer", 1, 10**5),
        Option("layers", int, "model", "recurrent layers", 1, 1000),
        Option(
            "mlp_window", int, "model", "symbols that the MLP sees, the current one among them (default: 5)", 1, 10**4,
            is_optional=True,
        ),
        Option(
            "encoding", str, "model",
            f"a symbol as one vector, or as digits (default: one-hot up to {ONE_HOT_UP_TO:,} symbols)",
            choices=("one-hot", "digits"), is_optional=True,
        ),
        Option("base", int, "model", "values that a digit can have (default: 10)", 2, 10**4, is_optional=True),
        Option("init", str, "model", "first weights as PyTorch or as Keras draws them", choices=("torch", "keras")),
        Option(
            "learning_rate", float, "training", "Adam's step size", 1e-12, 1e3,
            reason="outside these bounds nothing is learned",
        ),
        Option(
            "clip_norm", float, "training", "scale longer gradients down to this norm", 1e-12, 1e12, is_optional=True
        ),
        Option("carry", str, "state", "hand the state to the next batch, or reset it", choices=("keep", "reset")),
        Option(
            "cut", str, "state", "detach at every chunk, or let gradients through the whole sequence",
            choices=("chunk", "sequence"),
        ),
        Option("accelerator", str, "machine", "where to train", choices=("auto", "cpu", "cuda")),
        Option("devices", int, "machine", "processes that share the lanes", 1, 1024),
        Option("workers", int, "machine", "loader processes; 0: make data in this one", 0, 256),
        Option("threads", int, "machine", "CPU threads; one is fastest at these sizes", 1, 1024),
        Option(
            "validate_every", int, "training",
            "evaluate after so many updates, a row of validation.csv each (default: not)", 1, _BIG, is_optional=True,
        ),
        Option("log_every", int, "output", "updates per row of metrics.csv", 1, _BIG),
        Option("checkpoint_every", int, "output", "updates per checkpoint (default: 500)", 1, _BIG),
        Option("tensorboard", bool, "output", "write TensorBoard's files too"),
    )
}  # fmt: skip

# Python calls a number of steps *_length and a count num_*; a flag is shorter.
_SHORT_NAMES = {
    "window_length": "window",
    "num_layers": "layers",
    "num_lanes": "lanes",
    "chunk_length": "chunk",
}


_DIGITS_HIDDEN_SIZE = 128  # several digits to remember where a one-hot symbol is one


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what a run computes. Make one with `configure`.

    Every field is the flag of the same name; `framing` and `windows_dropped` are no flags but belong to the experiment.
    """

    mode: str
    seed: int
    sequences: int | None
    updates: int | None
    length: int | None
    vocabulary_size: int
    lag: int
    framing: str
    window: int | None
    windows_dropped: int
    batch_size: int | None
    lanes: int | None
    chunk: int | None
    data: str | None
    column: str | None
    series: str | None
    missing: float
    reset_every: int | None
    stagger: bool
    model: str
    hidden_size: int
    layers: int
    mlp_window: int | None
    encoding: str
    base: int | None
    init: str
    learning_rate: float
    clip_norm: float | None
    carry: str
    cut: str
    accelerator: str
    devices: int
    workers: int
    threads: int
    validate_every: int | None
    log_every: int
    checkpoint_every: int
    tensorboard: bool

    def to_dict(self) -> dict[str, Value]:
        """The mode and its options, as they stand in a YAML file and can be given back to `configure`."""
        names = ("mode", *EXPERIMENTS[self.mode].options)
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Experiment:
    """An experiment as data.

    Attributes:
        name: The mode.
        summary: What it is, in a line.
        defaults: The values that differ from `COMMON_DEFAULTS`, and the ones that are its own.
        fixed: Values that make the experiment what it is; they are no flags here.
        claim: What evaluation must show at the defaults: "accuracy >= 0.99" or "chance".
        tutorial_result: Accuracy that the tutorial reports; None: it has no such experiment.
        window_holds_lag: Whether the answer must lie inside the window.
    """

    name: str
    summary: str
    defaults: Mapping[str, Value]
    fixed: Mapping[str, Value]
    claim: str
    tutorial_result: float | None = None
    window_holds_lag: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options it uses."""
        return tuple(name for name in OPTIONS if name not in self.fixed)


_NO_LANES: dict[str, Value] = {"lanes": None, "chunk": None, "reset_every": None, "stagger": False}
_WINDOWS: dict[str, Value] = {"framing": "windows", "windows_dropped": 1, **_NO_LANES}
# Rows that hold all they need begin with an empty state.
_ROWS: dict[str, Value] = {"window": None, "windows_dropped": 0, "carry": "reset", "cut": "chunk", **_NO_LANES}
_LANES: dict[str, Value] = {
    "framing": "lanes", "sequences": None, "length": None, "window": None, "windows_dropped": 0, "batch_size": None,
    "cut": "chunk",
}  # fmt: skip
COMMON_DEFAULTS: dict[str, Value] = {
    "seed": 1, "sequences": None, "updates": None, "length": 25, "vocabulary_size": 100, "data": None, "column": None,
    "series": None, "missing": 0.0,
    "model": "lstm", "layers": 1, "mlp_window": None, "encoding": None, "base": None, "init": "torch",
    "learning_rate": 1e-3, "clip_norm": None, "cut": "chunk", "accelerator": "auto", "devices": 1, "workers": 0,
    "threads": 1, "validate_every": None, "log_every": 100, "checkpoint_every": 500, "tensorboard": False,
}  # fmt: skip

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "echo",
            "repeat the symbol just read",
            {"sequences": 500, "batch_size": 1, "hidden_size": 15, "carry": "reset"},
            {**_WINDOWS, "lag": 0, "window": 1, "windows_dropped": 0},
            claim="accuracy >= 0.99",
            tutorial_result=1.0,
        ),
        Experiment(
            "stateful",
            "the symbol one step ago, read one step at a time: the beginner's mistake",
            {"sequences": 2000, "lag": 1, "batch_size": 6, "hidden_size": 50, "carry": "keep"},
            {**_WINDOWS, "window": 1},
            claim="chance",
            tutorial_result=0.0,
        ),
        Experiment(
            "lag",
            "the symbol one step ago, with a window of context",
            {"sequences": 2000, "lag": 1, "window": 5, "batch_size": 5, "hidden_size": 50, "carry": "keep"},
            _WINDOWS,
            claim="accuracy >= 0.99",
            tutorial_result=1.0,
            window_holds_lag=True,
        ),
        Experiment(
            "masked",
            "as lag, with a window for every step: what lies before the sequence is missing",
            {"sequences": 2000, "lag": 1, "window": 5, "batch_size": 5, "hidden_size": 50, "carry": "keep"},
            {**_WINDOWS, "framing": "masked", "windows_dropped": 0},
            claim="accuracy >= 0.99",
            window_holds_lag=True,
        ),
        Experiment(
            "whole",
            "the symbol one step ago, each row the sequence as it has unfolded so far",
            {"sequences": 2000, "lag": 1, "batch_size": 5, "hidden_size": 50},
            {**_ROWS, "framing": "whole"},
            claim="accuracy >= 0.99",
        ),
        Experiment(
            "sequence",
            "the symbol one step ago at every step, the whole sequence in one pass",
            {"sequences": 2000, "lag": 1, "batch_size": 1, "hidden_size": 50, "learning_rate": 3e-3},
            {**_ROWS, "framing": "sequence"},
            claim="accuracy >= 0.99",
        ),
        Experiment(
            "aligned",
            "the symbol one step ago at every step, lanes that go on reading where they stopped",
            {
                "updates": 2000,
                "lag": 1,
                "lanes": 32,
                "chunk": 5,
                "reset_every": None,
                "stagger": False,
                "hidden_size": 50,
                "carry": "keep",
                "learning_rate": 3e-3,
            },
            _LANES,
            claim="accuracy >= 0.99",
        ),
    )
}


def configure(mode: str, **options: Any) -> Configuration:
    """A complete, checked configuration: the experiment's defaults with some options changed.

    >>> configure("lag", lag=3).window
    5

    Args:
        mode: One of `EXPERIMENTS`.
        options: Values by name. `sequences` and `updates` are two ways to say the same; giving one drops the
            other's default.

    Returns:
        The configuration.

    Raises:
        ValueError: If a name is unknown or not used by this mode, or a value breaks a rule.
        TypeError: If a value is of the wrong type.
    """
    if not isinstance(mode, str) or mode not in EXPERIMENTS:
        raise ValueError(f"`mode` must be one of {', '.join(EXPERIMENTS)}. Got {mode!r}{suggest(mode, EXPERIMENTS)}.")
    experiment = EXPERIMENTS[mode]
    for name, value in options.items():
        _check_name(name, value, experiment)
    given = {name: check_value(OPTIONS[name], value) for name, value in options.items()}
    values = {**COMMON_DEFAULTS, **experiment.defaults, **experiment.fixed, **given}
    if given.get("updates") is not None:
        if given.get("sequences") is not None:
            raise ValueError(
                "`sequences` and `updates` both say how long to train, so only one can be given. "
                f"Got {given['sequences']} and {given['updates']}."
            )
        values["sequences"] = None
    _fill_in_model(values, given)
    for name, owner in (("column", "data"), ("series", "column")):
        if values[name] is not None and values[owner] is None:
            raise ValueError(f"`{name}` has an effect only together with `{owner}`. Got {_shorten(values[name])!r}.")
    configuration = Configuration(mode=mode, **values)  # type: ignore[arg-type]  # checked one by one above
    _check_rules(configuration, experiment)
    return configuration


def differences(saved: Configuration, now: Configuration) -> list[str]:
    """The options in which a training that is to go on differs from the one that was saved, each in words.

    How long it trains may grow, and nothing else may differ: it would not be the same training.
    """
    names = [name for name in ("mode", *OPTIONS) if getattr(saved, name) != getattr(now, name)]
    lengths = {name for name in ("sequences", "updates") if name in names}
    if all((getattr(now, name) or 0) > (getattr(saved, name) or 0) for name in lengths):
        names = [name for name in names if name not in lengths]
    return [f"`{name}` was {getattr(saved, name)} and is {getattr(now, name)}" for name in names]


def replace(configuration: Configuration, **changes: Any) -> Configuration:
    """The configuration with some options changed, checked anew."""
    options = configuration.to_dict()
    mode = str(options.pop("mode"))
    return configure(mode, **{**options, **changes})


def command_line(configuration: Configuration) -> str:
    """The command that trains a configuration: the flags that differ from its mode's defaults.

    >>> command_line(configure("lag", lag=4, carry="reset"))
    'python -m echo_torch train --mode lag --lag 4 --carry reset'
    """
    made, said = configure(configuration.mode), ["data", "vocabulary_size"] if configuration.data is not None else []
    # Again and again, because the default of one option can hang on another.
    while differing := [name for name in OPTIONS if getattr(made, name) != getattr(configuration, name)]:
        said += [name for name in differing if name not in said]
        made = configure(configuration.mode, **{name: getattr(configuration, name) for name in said})
    words = ["python", "-m", "echo_torch", "train", "--mode", configuration.mode]
    for option in OPTIONS.values():
        value = str(getattr(configuration, option.name))
        if option.name not in said or value == "None":  # the other one of `sequences` and `updates`
            continue
        # A value that looks like a flag is read as one, unless it stands behind an equals sign.
        joined = [f"{option.flag}={value}"] if value.startswith("-") else [option.flag, value]
        words += [option.flag] if option.kind is bool else joined
    return shlex.join(words)


def check_value(option: Option, value: object) -> Value:
    """A value as the option's type, or an error that says the rule.

    Args:
        option: Which option.
        value: A number or word, or the text of one.

    Returns:
        The value in its type; None stays None where the option may be absent.
    """
    if value is None and option.is_optional:
        return None
    if option.kind is str and not option.choices:
        if not isinstance(value, str) or not value or "\0" in value:
            raise TypeError(f"`{option.name}` must be a name. Got {_shorten(repr(value))}.")
        return value
    if option.kind is str:
        if value not in option.choices:
            words = ", ".join(option.choices)
            raise ValueError(f"`{option.name}` must be one of {words}. Got {value!r}{suggest(value, option.choices)}.")
        return str(value)
    if option.kind is bool:
        if not isinstance(value, bool):
            raise TypeError(f"`{option.name}` must be true or false. Got {value!r}.")
        return value
    return _check_number(option, value)


def suggest(word: object, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where a known word is close, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def in_flags(sentence: str) -> str:
    """The same sentence for the command line: `argument` names become flags."""
    names = {**{name: name for name in ("mode", *OPTIONS)}, **_SHORT_NAMES}
    for name, short in names.items():
        sentence = sentence.replace(f"`{name}`", "--" + short.replace("_", "-"))
    return sentence


def count_parameters(configuration: Configuration) -> int:
    """How many numbers are trained. Keras has one bias where PyTorch has two."""
    c, size = configuration, symbol_size(configuration)
    head = size * (c.hidden_size + 1)
    if (window_length := memory_length(c)) is not None:
        return c.hidden_size * (size * window_length + 1) + head
    num_biases = 1 if c.init == "keras" else 2
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[c.model] * c.hidden_size
    first = gates * (size + c.hidden_size + num_biases)
    return first + (c.layers - 1) * gates * (2 * c.hidden_size + num_biases) + head


def symbol_size(configuration: Configuration) -> int:
    """Numbers that stand for a symbol in the network's input and output."""
    # Imported late, here and below: it brings numpy, which `--help` need not wait for.
    from echo_torch.data.random_symbols import count_digits

    c = configuration
    return c.vocabulary_size if c.base is None else c.base * count_digits(c.vocabulary_size, c.base)


def memory_length(configuration: Configuration) -> int | None:
    """Steps that an answer can depend on, the current one among them; None: the network is recurrent, any number."""
    return {"mlp": configuration.mlp_window, "memoryless": 1}.get(configuration.model)


def describe(configuration: Configuration) -> str:
    """What is asked, in a sentence made from the numbers."""
    c = configuration
    asked = "the symbol just read" if c.lag == 0 else f"the symbol {steps(c.lag)} ago"
    carried = {"keep": "the state carried", "reset": "the state reset"}[c.carry] + " at every batch"
    if c.framing == "lanes":
        reading = f"{c.lanes} lanes, {steps(c.chunk)} of each at a time, {carried}"
    elif c.framing == "whole":
        reading = f"the sequence so far, 1 to {c.length} steps, in batches of {c.batch_size}"
    elif c.framing == "sequence":
        together = "" if c.batch_size == 1 else f", {c.batch_size} sequences at a time"
        reading = f"the whole sequence of {steps(c.length)} in one pass{together}, asked at every step"
    else:
        windows = "single steps" if c.window == 1 else f"windows of {c.window} steps"
        before = ", what lies before the sequence missing" if c.framing == "masked" else ""
        reading = f"{windows} in batches of {c.batch_size}{before}, {carried}"
    reading += f", from {c.data}" if c.data else ""
    lost = f"; {c.missing:.0%} of the symbols are missing" if c.missing else ""
    return f"say {asked} (1 of {c.vocabulary_size}), reading {reading}{lost}"


def steps(number: int | None) -> str:
    """'1 step', '2 steps'."""
    return f"{number} step{'' if number == 1 else 's'}"


def _check_name(name: str, value: object, experiment: Experiment) -> None:
    if name not in OPTIONS:
        raise ValueError(f"There is no option {name!r}{suggest(name, ('mode', *OPTIONS))}.")
    if name not in experiment.options:
        fixed = experiment.fixed[name]
        state = f"is always {fixed}" if fixed or (fixed == 0 and fixed is not False) else "has no meaning"
        raise ValueError(
            f"`{name}` {state} in mode {experiment.name}, and an option without effect is refused, so that no result "
            f"is misread. Got {_shorten(value)}; leave it out."
        )


def _check_number(option: Option, value: object) -> int | float:
    article = "a whole number" if option.kind is int else "a number"
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = _parse_int(value) if option.kind is int else float(value)
    except (ValueError, OverflowError):
        raise TypeError(f"`{option.name}` must be {article}. Got {_shorten(repr(value))}.") from None
    if not option.low <= number <= option.high:  # also false for nan
        low, high = (int(bound) if option.kind is int else bound for bound in (option.low, option.high))
        bounds = f"between {low} and {high}"
        reason = f", because {option.reason}" if option.reason else ""
        raise ValueError(f"`{option.name}` must be {article} {bounds}{reason}. Got {_shorten(value)}.")
    return number


def _parse_int(value: int | float | str) -> int:
    if isinstance(value, float):
        raise ValueError
    return int(value)


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def _fill_in_model(values: dict[str, Any], given: Mapping[str, Value]) -> None:
    """Options that hang on another one: their defaults, or an error where they would have no effect."""
    if values["encoding"] is None:
        values["encoding"] = "one-hot" if values["vocabulary_size"] <= ONE_HOT_UP_TO else "digits"
    for name, owner, word, default in (("base", "encoding", "digits", 10), ("mlp_window", "model", "mlp", 5)):
        if values[owner] == word:
            values[name] = default if values[name] is None else values[name]
        elif given.get(name) is not None:
            raise ValueError(
                f"`{name}` has an effect only where `{owner}` is {word}, and an option without effect is refused, so "
                f"that no result is misread. Got {name} {given[name]} with {owner} {values[owner]}."
            )
    if values["encoding"] == "digits" and "hidden_size" not in given:
        values["hidden_size"] = max(_DIGITS_HIDDEN_SIZE, values["hidden_size"])
    if values["model"] in ("mlp", "memoryless") and values["layers"] != 1:
        raise ValueError(f"`layers` must be 1 where `model` is {values['model']}. Got {values['layers']}.")
    if values["model"] != "lstm" and values["init"] == "keras":
        raise ValueError(f"`init` can be keras only where `model` is lstm. Got init keras with {values['model']}.")


def _check_rules(c: Configuration, experiment: Experiment) -> None:
    if c.framing == "lanes":
        _check_lanes(c)
    else:
        _check_windows(c, experiment)
    from echo_torch.data.layout import check_carry_and_cut

    check_carry_and_cut(c.carry, c.cut)
    if (number := count_parameters(c)) > MAX_PARAMETERS:
        raise ValueError(
            f"`vocabulary_size`, `hidden_size` and `layers` must leave the network at most {MAX_PARAMETERS:,} "
            f"parameters, which take 3.2 GB to train. Got {number:,}. With `encoding` digits there are fewer."
        )
    rows, columns = _chunk_shape(c)
    if (number := rows * columns * (3 * symbol_size(c) + 10 * c.hidden_size * c.layers)) > MAX_CHUNK_NUMBERS:
        names = "`lanes`, `chunk`" if c.framing == "lanes" else "`batch_size`, `window`, `length`"
        raise ValueError(
            f"{names}, `vocabulary_size` and `hidden_size` must leave one chunk at most {MAX_CHUNK_NUMBERS:,} "
            f"numbers to hold for the gradient (0.8 GB). Got {number:,}."
        )


def _check_windows(c: Configuration, experiment: Experiment) -> None:
    length, window = given(c.length), c.window or 1
    if experiment.window_holds_lag and c.lag >= window:
        raise ValueError(
            f"`lag` must be smaller than `window` in mode {c.mode}, so that the answer lies inside the window. "
            f"Got lag {c.lag} with window {window}."
        )
    shortest = window + c.windows_dropped if c.framing == "windows" else 1
    if length < shortest:
        rule = "window + 1" if c.windows_dropped else "window"
        raise ValueError(
            f"`length` must be at least {rule} = {shortest} in mode {c.mode}, so that a window is left"
            f"{' after the first, which the tutorial drops' if c.windows_dropped else ''}. Got {length}."
        )
    if c.lag >= length:
        raise ValueError(
            f"`lag` must be smaller than `length`, or no target has an answer. Got lag {c.lag} with length {length}."
        )


def _check_lanes(c: Configuration) -> None:
    if c.reset_every is None:
        if c.stagger:
            raise ValueError("`stagger` needs `reset_every`: lanes that never reset cannot do so at different chunks.")
    elif c.lag >= c.reset_every:
        raise ValueError(
            f"`lag` must be smaller than `reset_every`, or no target has an answer. "
            f"Got lag {c.lag} with a reset every {steps(c.reset_every)}."
        )


def _chunk_shape(c: Configuration) -> tuple[int, int]:
    if c.framing == "lanes":
        return given(c.lanes), given(c.chunk)
    columns, batch_size = c.window or given(c.length), given(c.batch_size)
    if c.cut == "sequence":
        columns *= -(-given(c.length) // batch_size)
    return batch_size, columns


def given(value: int | None) -> int:
    """A number that this mode's configuration has."""
    if value is None:
        raise TypeError("This option has no value in this mode.")
    return value


def given_text(value: str | None) -> str:
    """A name that this configuration has."""
    if value is None:
        raise TypeError("This option has no value in this configuration.")
    return value
