"""Finished runs in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from echo_torch.builders import build_frames, build_reach, num_updates
from echo_torch.evaluation import wilson_interval
from echo_torch.experiments import EXPERIMENTS, Configuration, command_line, given, replace
from echo_torch.reach import Reach

_AT_THE_CEILING = 0.01
_FEW_CHUNKS = 10  # that are shown one by one
_SIGMAS = 4  # beyond so many standard deviations a difference is not laid to sampling
_TREND_SHARE = 5  # the last and the next to last fifth of a training are compared


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
    interval = _interval(result["accuracy_low"], result["accuracy_high"])
    return [
        f"accuracy {result['accuracy']:.2%} ({interval}) on {result['targets']:,} fresh targets; "
        f"loss {result['loss']:.4f} nats; chance {result['chance']:.2%}",
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
    return f"accuracy by chunk of the sequence: {', '.join(shares)}"


def chunks_differ(result: Mapping[str, Any]) -> bool:
    """Whether some chunk of the sequence is answered better or worse than all together, by more than sampling."""
    pooled, counts = result["accuracy"], list(_counts(result))
    return any(not low <= pooled <= high for low, high in (wilson_interval(*pair, _SIGMAS) for pair in counts))


def reset_line(result: Mapping[str, Any]) -> str:
    """What the same weights answer where the state is reset at every chunk."""
    interval = _interval(result["accuracy_reset_low"], result["accuracy_reset_high"])
    return f"the same weights with the state reset at every chunk: {result['accuracy_reset']:.2%} ({interval})"


def interferes(result: Mapping[str, Any]) -> bool:
    """Whether the same weights answer better without the state that is handed over, by more than sampling."""
    return bool(result["accuracy_reset_low"] > result["accuracy_high"])


def implication(
    found: Reach, result: Mapping[str, Any], *, memory_length: int | None = None, cures: Sequence[Cure] = ()
) -> str:
    """What the data path and the evaluation imply for a result: where it lies between chance and ceiling, and why.

    Args:
        found: The reach of the training's chunks.
        result: As in result.json.
        memory_length: Steps that the network's answer can depend on; None: any number.
        cures: As `cures_of` names them; asked for only where the handed-over state is in the way.
    """
    ceiling, chance = result["ceiling"], result["chance"]
    if result["accuracy"] is None:
        return "Nothing was asked."
    if ceiling is not None and ceiling == chance:
        return f"The ceiling of the data path is chance, {chance:.1%}: no training could have learned anything here."
    if ceiling is not None and result["accuracy"] >= ceiling - _AT_THE_CEILING:
        return f"This is within 1 % of the ceiling of the data path, {ceiling:.1%}: what could be learned was learned."
    if memory_length is not None and memory_length <= found.lag and ceiling is not None:
        sees = "the current symbol alone" if memory_length == 1 else f"the last {memory_length} symbols alone"
        return f"The data path allows {ceiling:.1%}, but this network sees {sees}; the answer lies {found.lag} back."
    if interferes(result):
        return _interference(result, cures)
    if ceiling is None:
        return "How far these numbers can be guessed is not known, so there is no ceiling to compare with."
    if result["accuracy_low"] <= chance <= result["accuracy_high"]:
        return f"This is chance, although the data path allows {ceiling:.1%}; {_what_is_left(found, result)}."
    return f"This lies between chance and the ceiling of the data path, {ceiling:.1%}; {_what_is_left(found, result)}."


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
        configuration: Of a run that carries its state.
        found: The reach of its chunks.
    """
    c = configuration
    options = EXPERIMENTS[c.mode].options
    reset = replace(c, carry="reset", **({"cut": "chunk"} if c.cut != "chunk" else {}))
    changes: list[tuple[str, str, Configuration]] = []
    if build_reach(reset).reachable_share == found.reachable_share:
        changes.append(("--carry reset", "each chunk holds its own answers", reset))
        if "batch_size" in options and (num_rows := len(build_frames(c, given(c.length)).steps)) > given(c.batch_size):
            whole = replace(c, batch_size=num_rows)
            changes.append((f"--batch-size {num_rows}", "one batch holds a sequence, so nothing is handed over", whole))
    if "cut" in options and c.cut != "sequence":
        updates = num_updates(c)
        uncut = replace(c, cut="sequence", sequences=None, updates=updates)
        flags = f"--cut sequence --updates {updates}"
        changes.append((flags, "the gradient crosses the hand-overs, as many updates", uncut))
    return [Cure(flags, reason, command_line(changed)) for flags, reason, changed in changes]


def is_open(result: Mapping[str, Any]) -> bool:
    """Whether more could have been learned, as far as the data path and the handed-over state tell."""
    if result["accuracy"] is None or result["ceiling"] is None or interferes(result):
        return False
    return bool(result["ceiling"] > result["chance"] and result["accuracy"] < result["ceiling"] - _AT_THE_CEILING)


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


def state_line(configuration: Configuration, *, is_carried: bool) -> str:
    """From which state a list is read.

    Args:
        configuration: Of the run.
        is_carried: Whether the state is handed over.
    """
    c = configuration
    parts = {
        "lanes": (f"chunk of {c.chunk}", f"chunk to chunk of {c.chunk}"),
        "whole": ("list, read in one pass", ""),
        "sequence": ("list, read in one pass", ""),
    }
    windows = f"windows of {c.window} in batches of {c.batch_size}"
    fresh, carried = parts.get(c.framing, (f"window of {c.window}", f"batch to batch, {windows}"))
    way = f"carried from {carried}" if is_carried else f"fresh for every {fresh}"
    same = is_carried == (c.carry == "keep")
    return f"state: {way}; {'as' if same else 'not as'} in the training of this run"


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
        f"chance is {chance:.2%}"
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
    found = (
        f"It answers {empty}{later:.1%} after a hand-over, and {result['accuracy_reset']:.1%} with the state reset at "
        "every chunk: the carried state is in the way (interference)"
    )
    if not cures:
        return f"{found}; some answers are read in an earlier chunk, so a state must be carried all the same."
    return f"{found}; try " + ", or ".join(f"{cure.flags} ({cure.reason})" for cure in cures) + "."


def _what_is_left(found: Reach, result: Mapping[str, Any]) -> str:
    """Which of the four factors are given, which are not, and so what else can be missing."""
    counts = list(_counts(result))
    shares = [correct / asked for correct, asked in counts]
    best = shares.index(max(shares))
    fades = ""
    if wilson_interval(*counts[best], _SIGMAS)[0] > wilson_interval(*counts[-1], _SIGMAS)[1]:
        place = [number for number, asked in enumerate(result["targets_by_chunk"], start=1) if asked][best]
        fades = (
            f", and what the state holds serves in chunk {place} of a sequence ({shares[best]:.1%} right) and not in "
            f"the last ({shares[-1]:.1%})"
        )
    if not found.in_horizon_share:
        return f"no gradient gets from a question to where its answer was read{fades}"
    near = f"the gradient gets from {found.in_horizon_share:.0%} of the questions to where their answer was read"
    if fades:
        return f"{near}{fades}"
    return (
        f"{near}, and no interference is seen: what is left is the training (updates, learning rate) and "
        "the size of the state"
    )
