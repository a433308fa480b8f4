"""A configuration: the options of one run, checked together.

Nothing heavy is imported here, so that flags can be explained and refused at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from echo_torch.errors import RuleError, plain, shorten
from echo_torch.experiments.catalogue import EXPERIMENTS, Experiment
from echo_torch.experiments.model_options import Value
from echo_torch.experiments.options import (
    ONE_HOT_UP_TO,
    OPTIONS,
    is_own_model,
    option,
    option_names,
    steps_in_words,
)
from echo_torch.experiments.other_words import meanings, suggest_choice, suggest_option
from echo_torch.experiments.readings import Reading

if TYPE_CHECKING:
    from echo_torch.data.own_symbols import OwnNumbers

MAX_PARAMETERS = 200_000_000  # with Adam's two moments and the gradients 3.2 GB
MAX_CHUNK_NUMBERS = 200_000_000  # activations of one chunk kept for the gradient, 0.8 GB
_DIGITS_HIDDEN_SIZE = 128  # several digits to remember where a one-hot symbol is one
# Which options say something of the networks here, and which of a user's own model.
_OF_NETWORKS = ("hidden_size", "layers", "mlp_window", "encoding", "base", "init", "kernel")
_OF_OWN_MODELS = ("model_options",)


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what a run computes. Make one with `configure`.

    Every field but the first two is the option of the same name; the options of the reading are fields of `reading`.
    A field whose option has no effect with this model holds the option's default and stands nowhere else.

    >>> configure("lag", lag=3).to_dict()["lag"]
    3

    Attributes:
        mode: The experiment.
        reading: What a batch holds, how it is asked, and for how long.
    """

    mode: str
    reading: Reading
    seed: int = option("seed")
    vocabulary_size: int = option("vocabulary_size")
    data: str | None = option("data")
    column: str | None = option("column")
    series: str | None = option("series")
    missing: float = option("missing")
    model: str = option("model")
    model_options: str | None = option("model_options")
    hidden_size: int = option("hidden_size")
    layers: int = option("layers")
    mlp_window: int | None = option("mlp_window")
    encoding: str = option("encoding")
    base: int | None = option("base")
    init: str = option("init")
    learning_rate: float = option("learning_rate")
    clip_norm: float | None = option("clip_norm")
    accelerator: str = option("accelerator")
    kernel: str = option("kernel")
    devices: int = option("devices")
    workers: int = option("workers")
    threads: int = option("threads")
    validate_every: int | None = option("validate_every")
    log_every: int = option("log_every")
    checkpoint_every: int = option("checkpoint_every")
    tensorboard: bool = option("tensorboard")

    def to_dict(self) -> dict[str, Value]:
        """The mode and its options, flat, as they stand in a YAML file and can be given back to `configure`."""
        return {"mode": self.mode, **self.options()}

    def options(self) -> dict[str, Value]:
        """The options alone, those of the reading among them."""
        holder_of = {name: holder for holder in (self.reading, self) for name in option_names(type(holder))}
        without_effect = _without_effect(self.model)
        return {
            name: getattr(holder_of[name], name)
            for name in EXPERIMENTS[self.mode].options
            if name not in without_effect
        }


def configure(mode: str, **options: Any) -> Configuration:
    """A complete, checked configuration: the experiment's defaults with some options changed.

    >>> configure("lag", lag=3).reading.window
    5

    Args:
        mode: One of `EXPERIMENTS`.
        options: Values by name. `sequences` and `updates` are two ways to say the same; giving one drops the
            other's default. `model_options` is text, "width=32,depth=2", or a dict.

    Returns:
        The configuration.

    Raises:
        RuleError: If a name is unknown or not used by this mode, or a value breaks a rule.
    """
    experiment = experiment_of(mode)
    for name, value in options.items():
        _check_name(name, value, experiment)
    said = {name: OPTIONS[name].check(value) for name, value in options.items()}
    values = _values(experiment, said)
    for name, owner in (("column", "data"), ("series", "column")):
        if values[name] is not None and values[owner] is None:
            raise RuleError(name, f"${name} has an effect only together with ${owner}", repr(shorten(values[name])))
    of_reading: dict[str, Any] = {name: values.pop(name) for name in experiment.reading_options}
    reading = experiment.reading(**of_reading, **experiment.fixed)
    configuration = Configuration(mode=mode, reading=reading, **values)
    reading.check(mode)
    _check_size(configuration)
    if configuration.kernel == "direct" and (obstacle := not_covered(configuration)) is not None:
        raise RuleError(
            obstacle,
            "$kernel direct needs $model lstm and 1 of $devices",
            f"{obstacle} {values[obstacle]}",
            reason="because its formulas are derived for that",
            way_out="with $kernel auto it is autograd's",
        )
    return configuration


def experiment_of(mode: object) -> Experiment:
    """The experiment of a name.

    Raises:
        RuleError: If there is none.
    """
    if not isinstance(mode, str) or mode not in EXPERIMENTS:
        rule = f"$mode must be one of {', '.join(EXPERIMENTS)}"
        raise RuleError("mode", rule, f"{mode!r}{suggest_choice('mode', mode, EXPERIMENTS)}")
    return EXPERIMENTS[mode]


def defaults_of(mode: str, **said: Value) -> dict[str, Value]:
    """What the options of a mode are where nothing else is said, without a check of all together, which takes longer.

    >>> defaults_of("lag")["hidden_size"], defaults_of("lag", encoding="digits")["hidden_size"]
    (50, 128)

    Args:
        mode: The experiment.
        said: Options on which the default of others can hang.
    """
    return _values(experiment_of(mode), said)


def _values(experiment: Experiment, said: Mapping[str, Value]) -> dict[str, Any]:
    """The options that say something of the model, with the experiment's defaults where nothing is said."""
    values = {**{name: OPTIONS[name].default for name in experiment.options}, **experiment.defaults, **said}
    if said.get("updates") is not None and "sequences" in values and "sequences" not in said:
        values["sequences"] = None
    _fit_to_model(values, said)
    return values


def configure_saved(values: Mapping[str, Any]) -> Configuration:
    """A configuration that a run has saved; one without a kernel was trained by autograd, when there was no other.

    Raises:
        RuleError: As `configure`.
        TypeError: If there is no mode, or nothing that holds names and values.
    """
    saved = dict(**values)
    if not is_own_model(str(saved.get("model"))):  # one of a user's own has no such option
        saved.setdefault("kernel", "autograd")
    return configure(**saved)


def not_covered(configuration: Configuration) -> str | None:
    """The option for which a gradient is not derived by hand; None: it is for all of them."""
    if configuration.model != "lstm":
        return "model"
    return None if configuration.devices == 1 else "devices"


def differences(saved: Configuration, now: Configuration) -> dict[str, tuple[Value, Value]]:
    """The options in which a training that is to go on differs from the one that was saved: {name: (was, is)}.

    How long it trains may grow, and nothing else may differ: it would not be the same training.
    """
    before, after = saved.to_dict(), kept_kernel(now, saved).to_dict()
    # What only one of them has hangs on the mode or the model, which differs then.
    names = [name for name in ("mode", *OPTIONS) if name in before and name in after and before[name] != after[name]]
    lengths = {name for name in ("sequences", "updates") if name in names}
    if all(_grows(before.get(name), after.get(name)) for name in lengths):
        names = [name for name in names if name not in lengths]
    return {name: (before.get(name), after.get(name)) for name in names}


def kept_kernel(now: Configuration, saved: Configuration) -> Configuration:
    """The configuration of a training that goes on, with the saved kernel where it asks for none."""
    return dataclasses.replace(now, kernel=saved.kernel) if now.kernel == "auto" else now


def _grows(before: Any, after: Any) -> bool:
    return bool((after or 0) > (before or 0))


def configure_with_data(mode: str, options: Mapping[str, Any]) -> tuple[Configuration, OwnNumbers | None]:
    """A configuration whose vocabulary is inferred from its own data where it is not given, and the data, opened once.

    Raises:
        UserError: If the data cannot be read.
        RuleError: As `configure`.
    """
    if not isinstance(options.get("data"), str) or options.get("vocabulary_size") is not None:
        return configure(mode, **options), None
    from echo_torch.data.own_symbols import open_numbers

    numbers = open_numbers(options["data"], column=options.get("column"), series=options.get("series"))
    return configure(mode, **{**options, "vocabulary_size": max(2, numbers.largest + 1)}), numbers


def replace(configuration: Configuration, **changes: Any) -> Configuration:
    """The configuration with some options changed, checked anew.

    >>> replace(configure("lag", lag=3), lag=4).reading.lag
    4
    """
    return configure(configuration.mode, **override(configuration.options(), changes))


def override(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some changed; of the two ways to say how long, a changed one replaces the other."""
    values = dict(options)
    for one, other in (("sequences", "updates"), ("updates", "sequences")):
        if one in changes and other not in changes:
            values.pop(other, None)
    return {**values, **changes}


def command_line(configuration: Configuration) -> str:
    """The command that trains a configuration: the flags that differ from its mode's defaults.

    >>> command_line(configure("lag", lag=4, carry="reset"))
    'python -m echo_torch train --mode lag --lag 4 --carry reset'
    """
    wanted = configuration.options()
    said = ["data", "vocabulary_size"] if configuration.data is not None else []
    made = configure(configuration.mode)
    if is_own_model(configuration.model):  # which has other options
        said, made = [*said, "model"], configure(configuration.mode, model=configuration.model)
    kept = list(said)
    # Again and again, because the default of one option can hang on another.
    while differing := [name for name, value in made.options().items() if value != wanted[name]]:
        said += [name for name in differing if name not in said]
        made = configure(configuration.mode, **{name: wanted[name] for name in said})
    for name in [name for name in said if name not in kept]:  # what follows from others need not be said
        fewer = [other for other in said if other != name]
        with contextlib.suppress(RuleError):
            if configure(configuration.mode, **{other: wanted[other] for other in fewer}).options() == wanted:
                said = fewer
    words = [word for name, value in wanted.items() if name in said for word in OPTIONS[name].words(value)]
    return program("train", "--mode", configuration.mode, *words)


def program(*words: str) -> str:
    """A command of this program as it is typed."""
    return shlex.join(["python", "-m", "echo_torch", *words])


def count_parameters(configuration: Configuration) -> int | None:
    """How many numbers are trained; None: a user's own model tells it when it is built.

    Keras has one bias where PyTorch has two.
    """
    c, size = configuration, symbol_size(configuration)
    if is_own_model(c.model):
        return None
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


def network_in_words(configuration: Configuration) -> str:
    """What tells one network from another of its kind: "hidden size 50", or the arguments of a user's own model."""
    if is_own_model(configuration.model):
        return " ".join(filter(None, (configuration.model, configuration.model_options)))
    return f"hidden size {configuration.hidden_size}"


def describe(configuration: Configuration) -> str:
    """What is asked, in a sentence made from the numbers."""
    lag, missing = configuration.reading.lag, configuration.missing
    asked = "the symbol just read" if lag == 0 else f"the symbol {steps_in_words(lag)} ago"
    reading = configuration.reading.sentence() + (f", from {configuration.data}" if configuration.data else "")
    lost = f"; {missing:.0%} of the symbols are missing" if missing else ""
    return f"say {asked} (one of {configuration.vocabulary_size:,} symbols), reading {reading}{lost}"


def guess_option(name: str, experiment: Experiment) -> str:
    """As `suggest_option`, of the options of an experiment if one of them may be meant."""
    return suggest_option(name, ("mode", *experiment.options)) or suggest_option(name, OPTIONS)


def _check_name(name: str, value: object, experiment: Experiment) -> None:
    if name not in OPTIONS:
        raise RuleError(name, f"There is no option {plain(repr(name))}{guess_option(name, experiment)}")
    if name not in experiment.options:
        constant = experiment.fixed.get(name, getattr(experiment.reading, name, None))
        state = "has no meaning" if constant is None else f"is always {constant}"
        others = [other for other in meanings(name) if other in experiment.options]
        raise RuleError(
            name,
            f"${name} {state} in mode {experiment.name}, and an option without effect is refused",
            shorten(value),
            reason="so that no result is misread",
            way_out=" or ".join(["leave it out", *(f"say ${other}" for other in others[:1])]),
        )


def refuse_without_effect(model: str, said: Mapping[str, object]) -> None:
    """Refuse options of a model that say nothing of this one.

    Args:
        model: One of the words, or a user's own.
        said: The options that were given; None stands for one that was not.

    Raises:
        RuleError: If one has no effect.
    """
    for name in _without_effect(model):
        if said.get(name) is not None:
            where = "is one of the networks here" if name in _OF_NETWORKS else "is a class of your own"
            raise RuleError(
                name,
                f"${name} has an effect only where $model {where}, and an option without effect is refused",
                f"{shorten(said[name])} with model {model}",
                reason="so that no result is misread",
                way_out="say it with $model_options" if name in _OF_NETWORKS else "leave it out",
            )


def _without_effect(model: str) -> tuple[str, ...]:
    return _OF_NETWORKS if is_own_model(model) else _OF_OWN_MODELS


def _fit_to_model(values: dict[str, Any], said: Mapping[str, Value]) -> None:
    """Leave the options that say something of the model, with their defaults."""
    refuse_without_effect(values["model"], said)
    for name in _without_effect(values["model"]):
        del values[name]
    if not is_own_model(values["model"]):
        _fill_in_network(values, said)


def _fill_in_network(values: dict[str, Any], said: Mapping[str, Value]) -> None:
    """Options that hang on another one: their defaults, or an error where they would have no effect."""
    if values["encoding"] is None:
        values["encoding"] = "one-hot" if values["vocabulary_size"] <= ONE_HOT_UP_TO else "digits"
    for name, owner, word, default in (("base", "encoding", "digits", 10), ("mlp_window", "model", "mlp", 5)):
        if values[owner] == word:
            values[name] = default if values[name] is None else values[name]
        elif said.get(name) is not None:
            raise RuleError(
                name,
                f"${name} has an effect only where ${owner} is {word}, and an option without effect is refused",
                f"{name} {said[name]} with {owner} {values[owner]}",
                reason="so that no result is misread",
            )
    if values["encoding"] == "digits" and "hidden_size" not in said:
        values["hidden_size"] = max(_DIGITS_HIDDEN_SIZE, values["hidden_size"])
    if values["model"] in ("mlp", "memoryless") and values["layers"] != 1:
        raise RuleError("layers", f"$layers must be 1 where $model is {values['model']}", values["layers"])
    if values["model"] != "lstm" and values["init"] == "keras":
        rule = "$init can be keras only where $model is lstm"
        raise RuleError("init", rule, f"init keras with {values['model']}")


def _check_size(c: Configuration) -> None:
    number = count_parameters(c)
    if number is not None and number > MAX_PARAMETERS:
        rule = (
            f"$vocabulary_size, $hidden_size and $layers must leave the network at most {MAX_PARAMETERS:,} parameters"
        )
        way_out = "with $encoding digits there are fewer"
        raise RuleError("vocabulary_size", rule, f"{number:,}", reason="which take 3.2 GB to train", way_out=way_out)
    rows, columns = c.reading.chunk_shape
    inside = 0 if is_own_model(c.model) else 10 * c.hidden_size * c.layers  # what an own model keeps, nobody knows
    if (number := rows * columns * (3 * symbol_size(c) + inside)) > MAX_CHUNK_NUMBERS:
        names = [*c.reading.size_options, "vocabulary_size", *(["hidden_size"] if inside else [])]
        rule = (
            f"{', '.join(f'${name}' for name in names[:-1])} and ${names[-1]} must leave one chunk at most "
            f"{MAX_CHUNK_NUMBERS:,} numbers to hold for the gradient (0.8 GB)"
        )
        raise RuleError(c.reading.size_options[0], rule, f"{number:,}")
