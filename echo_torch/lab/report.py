"""Finished runs in words and tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from echo_torch.diagnosis.data_path.explaining import share_in_words
from echo_torch.diagnosis.data_path.reaching import Reach
from echo_torch.experiments.catalogue import EXPERIMENTS
from echo_torch.experiments.configuration import (
    Configuration,
    command_line,
    count_parameters,
    describe,
    memory_length,
    network_in_words,
    replace,
)
from echo_torch.experiments.options import OPTIONS, is_own_model
from echo_torch.intervals import wilson_interval
from echo_torch.lab.finished import count_weights
from echo_torch.lab.plan import Plan

EXAMPLE = "for example: "  # begins the line that holds a command
_AT_THE_CEILING = 0.01
_FEW_CHUNKS = 10  # that are shown one by one
_SIGMAS = 4  # beyond so many standard deviations a difference is not laid to sampling
_TREND_SHARE = 5  # the last and the next to last fifth of a training are compared


def opening_lines(plan: Plan, found: Reach) -> list[str]:
    """What a training is asked, what can be reached in it, and what is trained, for how long.

    Args:
        plan: Of the training.
        found: The reach of its chunks.
    """
    c, chance = plan.configuration, 1 / plan.configuration.vocabulary_size
    number = count_parameters(c) or count_weights(plan.model())
    column, _ = plan.reading.progress
    drawn = dict(zip(("sequences", "symbols"), plan.layout.drawn(plan.num_updates), strict=True))
    return [
        f"asked: {describe(c)}",
        f"chance: {chance_in_words(chance)}; {_ceiling_in_words(found.ceiling, chance)}",
        f"network: {whole_network_in_words(c, number)}",
        f"training: {counted(plan.num_updates, 'updates')}, {counted(drawn[column], column)}",
    ]


def whole_network_in_words(configuration: Configuration, number: int | None) -> str:
    """The network with its kind, its depth and, where it is known, how many parameters it has."""
    kind = [] if is_own_model(configuration.model) else [configuration.model]
    depth = [f"{configuration.layers} layers"] if configuration.layers > 1 else []
    size = [] if number is None else [f"{number:,} parameters"]
    return ", ".join([*kind, network_in_words(configuration), *depth, *size])


def counted(number: int, units: str) -> str:
    """'1 run', '2,000 runs'."""
    return f"{number:,} {units.removesuffix('s') if number == 1 else units}"


def chance_in_words(chance: float, digits: int = 2) -> str:
    """As an accuracy is told beside it; of a large vocabulary with as many digits as show that it is not nothing.

    >>> chance_in_words(0.01), chance_in_words(0.01, 1), chance_in_words(1e-6)
    ('1.00%', '1.0%', '0.0001%')
    """
    return share_in_words(1, round(1 / chance), digits)


def _ceiling_in_words(ceiling: float | None, chance: float) -> str:
    if ceiling is None:
        return "the ceiling is not known, because these numbers may be guessed"
    if ceiling == chance:
        never = "no row has read since its reset what it is asked for, so no training can learn it"
        return f"the ceiling is chance too: {never}"
    return f"ceiling: {ceiling:.1%}, the best accuracy that any model could have on the training's batches"


def bounds_in_words(plan: Plan) -> str:
    """Between what an accuracy lies: "chance 1.0%, ceiling 100.0%"."""
    ceiling, chance = plan.reach().ceiling, chance_in_words(1 / plan.configuration.vocabulary_size, digits=1)
    return f"chance {chance}, ceiling {'unknown' if ceiling is None else f'{ceiling:.1%}'}"


def result_lines(
    result: Mapping[str, Any], expected: list[int], predicted: list[int], *, always_by_chunk: bool = False
) -> list[str]:
    """What the evaluation found, and one sequence in the tutorial's form.

    Args:
        result: As in result.json, or the part of it that an evaluation makes.
        expected: The symbols asked in one sequence.
        predicted: The network's answers.
        always_by_chunk: Whether the chunks of a sequence are told apart also where they are answered alike.
    """
    if result["accuracy"] is None:
        return ["accuracy: nothing was asked"]
    interval = _interval(result["accuracy_low"], result["accuracy_high"])
    return [
        f"accuracy {result['accuracy']:.2%} ({interval}) on {result['targets']:,} fresh targets; "
        f"loss {result['loss']:.4f} nats; chance {chance_in_words(result['chance'])}",
        *([chunk_line(result)] if always_by_chunk or chunks_differ(result) else []),
        *([reset_line(result)] if result["accuracy_reset"] != result["accuracy"] else []),
        f"Expected:  {expected}",
        f"Predicted: {predicted}",
    ]


def chunk_line(result: Mapping[str, Any]) -> str:
    """The accuracy of the first, second, ... chunk of a sequence; a dash where a chunk asks nothing."""
    shares = ["-" if share is None else f"{share:.1%}" for share in result["accuracy_by_chunk"]]
    if len(shares) > _FEW_CHUNKS:
        shares = [*shares[: _FEW_CHUNKS - 2], "...", shares[-1]]
    asked = result["targets_by_chunk"]
    # Of lanes the last place holds all that follows, many times as many.
    later = " (the last: with all later ones)" if len(asked) > 1 and asked[-1] > 2 * max(asked[:-1]) > 0 else ""
    return f"accuracy by chunk of the sequence: {', '.join(shares)}{later}"


def chunks_differ(result: Mapping[str, Any]) -> bool:
    """Whether some chunk of the sequence is answered better or worse than all together, by more than sampling."""
    pooled, counts = result["accuracy"], list(_counts(result))
    return any(not low <= pooled <= high for low, high in (wilson_interval(*pair, _SIGMAS) for pair in counts))


def reset_line(result: Mapping[str, Any]) -> str:
    """What the same weights answer where the state is reset at every chunk."""
    interval = _interval(result["accuracy_reset_low"], result["accuracy_reset_high"])
    return f"the same weights with the state reset at every chunk: {result['accuracy_reset']:.2%} ({interval})"


def interferes(result: Mapping[str, Any]) -> bool:
    """Whether the handed-over state is in the way: the same weights know more without it.

    Better by more than sampling alone is not enough: an unfinished training can lose a point or two at each hand-over
    and gain the rest by training on. The reset state must close half of what is missing, or know a quarter more.
    """
    if not _is_better_reset(result):
        return False
    carried, reset, chance = result["accuracy"], result["accuracy_reset"], result["chance"]
    return _is_most_of_it(result) or reset - chance >= 1.25 * (carried - chance)


def _is_better_reset(result: Mapping[str, Any]) -> bool:
    carried, reset, asked = result["accuracy"], result["accuracy_reset"], result["targets"]
    if carried is None:
        return False
    pooled = (carried + reset) / 2
    return bool(reset - carried > _SIGMAS * (2 * pooled * (1 - pooled) / asked) ** 0.5)


def _is_most_of_it(result: Mapping[str, Any]) -> bool:
    """Whether a reset state closes half of what is missing."""
    ceiling = 1.0 if result["ceiling"] is None else result["ceiling"]  # a user's numbers have none that is known
    return bool(result["accuracy_reset"] - result["accuracy"] >= 0.5 * (ceiling - result["accuracy"]))


def conclusion_lines(
    configuration: Configuration, found: Reach, result: Mapping[str, Any], metrics: Mapping[str, Sequence[float]]
) -> list[str]:
    """What follows for a finished run: where it lies between chance and ceiling, why, and what was seen to help.

    Args:
        configuration: Of the run.
        found: The reach of the training's chunks.
        result: As in result.json.
        metrics: Columns of metrics.csv.
    """
    memory, ceiling, chance = memory_length(configuration), result["ceiling"], result["chance"]
    if result["accuracy"] is None:
        return ["Nothing was asked."]
    if ceiling is not None and ceiling == chance:
        words = chance_in_words(chance, digits=1)
        return [f"The ceiling of the data path is chance, {words}: no training could have learned anything here."]
    if ceiling is not None and result["accuracy"] >= ceiling - _AT_THE_CEILING:
        return [
            f"This is within 1 % of the ceiling of the data path, {ceiling:.1%}: what could be learned was learned."
        ]
    lag = configuration.reading.lag
    if memory is not None and memory <= lag and ceiling is not None:
        sees = "the current symbol alone" if memory == 1 else f"the last {memory} symbols alone"
        return [f"The data path allows {ceiling:.1%}, but this network sees {sees}; the answer lies {lag} back."]
    trend = [] if (line := trend_line(metrics)) is None else [line]
    if interferes(result):
        cures = cures_of(configuration, found)
        example = [f"{EXAMPLE}{cures[0].command}"] if cures else []
        return [_interference(result, cures), *([] if _is_most_of_it(result) else trend), *example]
    if ceiling is None:
        return ["How far these numbers can be guessed is not known, so there is no ceiling to compare with.", *trend]
    where = f"This lies between chance and the ceiling of the data path, {ceiling:.1%}"
    if result["accuracy_low"] <= chance <= result["accuracy_high"]:
        where = f"This is chance, although the data path allows {ceiling:.1%}"
    elif result["accuracy_high"] < chance:
        where = f"This is below chance, although the data path allows {ceiling:.1%}"
    return [f"{where}; {_what_is_left(found, result, memory)}.", *trend]


class Cure(NamedTuple):
    """One way to have no interference.

    Attributes:
        flags: What to change.
        reason: Why it helps.
        command: The whole command.
    """

    flags: str
    reason: str
    command: str


def cures_of(configuration: Configuration, found: Reach) -> list[Cure]:
    """What to change in a run whose handed-over state is in the way; nothing where its answers need that state.

    Args:
        configuration: Of a run.
        found: The reach of its chunks.
    """
    reading, options = configuration.reading, EXPERIMENTS[configuration.mode].options
    if reading.carry != "keep":
        return []
    same_updates = {"updates": reading.num_updates}
    cut = {"cut": "chunk"} if reading.cut == "sequence" else {}
    reset = replace(configuration, carry="reset", **cut)
    changes: list[tuple[str, dict[str, Any]]] = []
    if Plan(reset).reach().reachable_share == found.reachable_share:
        changes.append(("each chunk holds its own answers", {"carry": "reset", **cut}))
        if one_batch := reading.one_batch_a_sequence():
            why = "one batch holds a sequence, so nothing is handed over"
            changes.append((why, {**one_batch, **cut, **same_updates}))
    if "cut" in options and not cut:
        changes.append(("the gradient crosses the hand-overs, as many updates", {"cut": "sequence", **same_updates}))
    cures = []
    for why, change in changes:
        with contextlib.suppress(ValueError):  # a chunk that would be too large is no way out
            flags = " ".join(f"{OPTIONS[name].flag} {value}" for name, value in change.items() if value is not None)
            cures.append(Cure(flags, why, command_line(replace(configuration, **change))))
    return cures


def trend_line(metrics: Mapping[str, Sequence[float]]) -> str | None:
    """Whether accuracy was still moving when the training ended; None where the rows are too few to tell.

    The last fifth of the rows is compared with the fifth before it. What comes after the end is not told: accuracy
    can go up and down at a high learning rate.

    Args:
        metrics: Columns of metrics.csv.
    """
    rows = list(zip(metrics["accuracy"], metrics["targets"], strict=True))
    size = len(rows) // _TREND_SHARE
    if size == 0:
        return None
    asked = [sum(targets for _, targets in part) for part in (rows[-2 * size : -size], rows[-size:])]
    if not all(asked):
        return None
    parts = (rows[-2 * size : -size], rows[-size:])
    right = [sum(accuracy * targets for accuracy, targets in part if targets) for part in parts]
    before, last = (correct / number for correct, number in zip(right, asked, strict=True))
    pooled = sum(right) / sum(asked)
    spread = (pooled * (1 - pooled) * sum(1 / number for number in asked)) ** 0.5
    moved = "did not move beyond sampling"
    if abs(last - before) > _SIGMAS * spread:
        moved = "was still rising" if last > before else "was falling"
    return (
        f"In training, accuracy was {last:.1%} in the last fifth of the updates and {before:.1%} in the fifth before: "
        f"it {moved} when the training ended."
    )


def state_line(configuration: Configuration, length: int, *, is_carried: bool) -> str:
    """From which state a list is read.

    Args:
        configuration: Of the run.
        length: Numbers in the list.
        is_carried: Whether the state is handed over.
    """
    reading = configuration.reading
    fresh, handed = reading.state_words()
    way = f"carried from {handed}" if is_carried else f"fresh for every {fresh}"
    same, end = is_carried == (reading.carry == "keep"), reading.sequence_length
    longer = f", but for the reset after every {end} numbers" if is_carried and same and end and length > end else ""
    return f"state: {way}; {'as' if same else 'not as'} in the training of this run{longer}"


def answer_line(position: int, of: int, symbols: Sequence[int], symbol: int, top: Sequence[tuple[int, float]]) -> str:
    """One answer to a user's numbers, with the places it stands for.

    Args:
        position: The last number that was read.
        of: The position whose number is to be echoed.
        symbols: The user's numbers.
        symbol: The answer.
        top: Likely symbols with probabilities; may be empty.
    """
    likely = ", ".join(f"{value} ({probability:.1%})" for value, probability in top)
    verdict = "right" if symbols[of] == symbol else f"the number there is {symbols[of]}"
    return f"after position {position}: {symbol} for position {of}, {verdict}" + (f"; {likely}" if likely else "")


def explanation_lines(symbols: Sequence[int], shares: Sequence[float]) -> list[str]:
    """What the last answer depends on, a line for each number of the input; nothing where `shares` is empty."""
    if not shares:
        return []
    lines = ["the last answer changes when a number is replaced by another:"]
    for position, (symbol, share) in enumerate(zip(symbols, shares, strict=True)):
        lines.append(f"  position {position}, {symbol}: in {share:.0%} of the replacements {'#' * round(20 * share)}")
    return lines


def ahead_line(right: int, asked: int, vocabulary_size: int) -> str:
    """Whether a run can tell the next random number; chance is what lies within four standard deviations of it."""
    low, high = wilson_interval(right, asked)
    chance = 1 / vocabulary_size
    measured = (
        f"the next number was told in {right / asked:.2%} of {asked:,} cases (95 % interval {low:.2%} to {high:.2%}); "
        f"chance is {chance_in_words(chance)}"
    )
    if abs(right / asked - chance) > 4 * (chance * (1 - chance) / asked) ** 0.5:
        return f"{measured}, and this is not chance: the numbers are not random"
    return (
        f"{measured}: each number is drawn independently of those before it, so nothing that was read says anything "
        "about the next one"
    )


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:.2%} to {high:.2%}"


def _counts(result: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """(correct, asked) of every chunk of the sequence that asks something."""
    for share, asked in zip(result["accuracy_by_chunk"], result["targets_by_chunk"], strict=True):
        if asked:
            yield round(share * asked), asked


def _interference(result: Mapping[str, Any], cures: Sequence[Cure]) -> str:
    first, first_asked = result["accuracy_by_chunk"][0], result["targets_by_chunk"][0]
    later_asked = result["targets"] - first_asked
    later = (result["accuracy"] * result["targets"] - (first or 0) * first_asked) / later_asked
    empty = "" if first is None else f"{first:.1%} from an empty state and "
    rest = "" if _is_most_of_it(result) else ", though that is not all that is missing"
    found = (
        f"It answers {empty}{later:.1%} after a hand-over, and {result['accuracy_reset']:.1%} with the state reset at "
        f"every chunk: the carried state is in the way (interference){rest}"
    )
    if not cures:
        return f"{found}; some answers are read in an earlier chunk, so a state must be carried all the same."
    return f"{found}; try " + ", or ".join(f"{cure.flags} ({cure.reason})" for cure in cures) + "."


def _what_is_left(found: Reach, result: Mapping[str, Any], memory: int | None) -> str:
    """Which of the four factors are given, which are not, and so what else can be missing."""
    if memory is not None:  # it is shown what it is asked for: no state has to be learned, no gradient to cross a chunk
        return f"this network is shown the last {memory} symbols: what is left is the training (updates, learning rate)"
    fades = _fading(result)
    if not found.in_horizon_share:
        return f"no gradient gets from a question to where its answer was read{fades}"
    near = f"the gradient gets from {found.in_horizon_share:.1%} of the questions to where their answer was read"
    if fades:
        return f"{near}{fades}"
    if _is_better_reset(result):
        seen = f", and the handed-over state costs {result['accuracy_reset'] - result['accuracy']:.1%}, a small part"
    else:
        # Where a reset state does worse, some answers need the state, and this comparison tells nothing of the others.
        seen = ", and no interference is seen" if result["accuracy_reset_high"] >= result["accuracy_low"] else ""
    return f"{near}{seen}: what is left is the training (updates, learning rate) and the size of the state"


def _fading(result: Mapping[str, Any]) -> str:
    """Words for a state that serves early in a sequence and not late: at its best it answers twice as much."""
    places = [place for place, asked in enumerate(result["targets_by_chunk"]) if asked]
    shares, resets = result["accuracy_by_chunk"], result["accuracy_reset_by_chunk"]
    best, last, chance = max(places, key=lambda place: float(shares[place])), places[-1], result["chance"]
    asked = result["targets_by_chunk"]
    low = wilson_interval(round(shares[best] * asked[best]), asked[best], _SIGMAS)[0]
    high = wilson_interval(round(shares[last] * asked[last]), asked[last], _SIGMAS)[1]
    is_faded = low > high and shares[best] - chance >= 2 * (shares[last] - chance)
    if not is_faded or resets[best] >= low:
        return ""  # it is not the state that serves there: it is empty, or does as well when it is
    return (
        f", and what the state holds serves best in chunk {best + 1} of a sequence ({shares[best]:.1%} right) and "
        f"little in the last ({shares[last]:.1%})"
    )
