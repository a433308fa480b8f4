"""What the calls of recurrent layers show: faults by kind, in numbers and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from echo_torch.diagnosis.data_path.reaching import is_shuffled
from echo_torch.diagnosis.watching.axes import axes_in, order_in
from echo_torch.diagnosis.watching.beginnings import beginnings_in
from echo_torch.diagnosis.watching.calls import Calls
from echo_torch.diagnosis.watching.foreign import WORDS, foreign_in
from echo_torch.diagnosis.watching.hand_overs import OTHER, HandOvers, is_lost
from echo_torch.diagnosis.watching.lanes import left_by
from echo_torch.diagnosis.watching.leaks import Leaks, leaks_in
from echo_torch.diagnosis.watching.padding import padding_read
from echo_torch.diagnosis.watching.recorded import Call, are_of_one_pass

_NEARLY_ALL = 0.9  # of the steps inside a chunk: a truncation by plan cuts fewer; of rows: some begin anew
_FEW = 5  # calls that may mean to begin with one half of a state
_MANY = 20  # jumps, of as many sizes, that are no accident beside rows that go on as they should

KINDS = {
    "axes": "In {count} of {of} calls the layer takes the rows of the batch for its steps. Build it with batch_first "
    "as the batch is laid out: True for (rows, steps, features), False for (steps, rows, features).",
    "order": "In {count} of {of} calls the steps that the layer reads in one row come from several rows: a view or a "
    "reshape has exchanged two axes and left the values where they were. Exchange them by transpose or permute.",
    "lanes-moved": "At {count} of {of} hand-overs a row goes on where another row of the batch before stopped, but its "
    "state is that of its own row: the sequences have moved to other rows and the states stayed. Keep each sequence in "
    "its row, or move the rows of the state along: state.index_select(1, rows).",
    "other-sequence": "At {count} of {of} hand-overs a row's state goes on into another sequence. Reset the state of "
    "a row where its sequence ends, or keep a state for each sequence.",
    "shuffled": "At {count} of {of} hand-overs a row goes on elsewhere than its state stopped, by {sizes} different "
    "gaps: the data are shuffled. Read them in order, or carry no state.",
    "rows-skip": "At {count} of {of} hand-overs a row goes on behind the place where its state stopped, mostly {gap} "
    "on. Lay the data out so that row i of a batch goes on where row i of the batch before stopped.",
    "rows-reread": "At {count} of {of} hand-overs a row goes back and reads again what its state has read, mostly "
    "{back}. Reset the state where the data begin anew, or lay them out so that each row goes on where it "
    "stopped.",
    "state-lost": "At {count} of {of} places where a row goes on exactly where it stopped, its state is gone. Hand the "
    "state that comes out of a call to the next one.",
    "rows-changed": "In {count} of {of} calls the state has another number of rows than the input. {cure}",
    "fields-swapped": "In {count} of {of} calls the hidden state enters where the cells belong, or the cells where the "
    "hidden state does. Hand them on in the order in which they came, (h, c).",
    "foreign-state": "At {count} of {of} beginnings the state is none that a call has left: it is {what}. Hand on what "
    "the call before left, row by row, or begin with zeros or with a state that is learned.",
    "unwatched": "In {count} of {of} calls it reads again what it gave before, without a recurrent layer of torch.nn: "
    "the recurrence is written by hand, and what its state does is not seen. `probe` tells whether a model does with "
    "its state what it must.",
    "validation-leak": "At {count} of {of} changes from evaluation to training the training goes on with the state "
    "that the evaluation left. Keep a state for each, or put the training's back afterwards.",
    "not-detached": "In {count} of {of} updates a gradient goes through the state into an earlier update: the state is "
    "handed on with its graph. Detach every tensor of it, and use the result: "
    "state = tuple(field.detach() for field in state).",
    "padding-read": "In {count} of {of} padded rows the answer is read behind the row's last step, {what}",
    "cut-inside": "At {count} of {of} steps inside a chunk the state is detached before it goes on, so the gradient "
    "gets one step back. Detach once, where one chunk ends and the next begins.",
}

_HALF_LOST = (
    "In {count} of {of} calls one tensor of the state is zero, and the other is what the call before left: half of the "
    "state is gone. Hand on both as they come out of a call, (h, c)."
)
_PADDING = {  # by whether it was filled in behind what the layer had given
    False: "from a state that has walked through padding. Pack the rows with their lengths, or read each at its own "
    "last step.",
    True: "where `pad_packed_sequence` has filled in what is no output of the layer. Read each row at its own last "
    "step, or take the state that the layer returns.",
}
_CURES = {  # of a state with another number of rows, by whether batches with more rows and with fewer were seen
    (False, True): "Give a batch that is shorter a state of its own, or leave its last rows unused.",
    (True, False): "Give a batch that has more rows a state of its own: begin it without one.",
    (True, True): "Give a batch that has more rows or fewer a state of its own: begin it without one.",
}


@dataclass(frozen=True)
class Finding:
    """A fault that was seen.

    Attributes:
        kind: A key of `KINDS`.
        module: The dotted name of the layer.
        count: How often it was seen.
        of: Out of how many that could have shown it.
        sentence: What it is, and how it is usually mended.
    """

    kind: str
    module: str
    count: int
    of: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def _finding(kind: str, name: str, count: int, of: int, **words: str) -> Finding:
    return Finding(kind, name, count, of, KINDS[kind].format(count=f"{count:,}", of=f"{of:,}", **words))


def findings_of(name: str, own: Sequence[Call], seen: Calls, rows: HandOvers) -> list[Finding]:
    """The faults of a layer that were seen.

    Args:
        name: Of the layer.
        own: Its calls.
        seen: All calls, as they came.
        rows: Its hand-overs.
    """
    found, calls = _of_layout(name, own, seen) or _of_places(name, rows), seen.calls  # mixed rows go on nowhere
    found += _of_halves(name, own, calls)
    found += _of_strangers(name, own, calls)
    found += _of_evaluations(name, leaks_in(own, seen, rows))
    found += _of_numbers(name, own)
    found += _of_padding(name, own)
    for kind, look in _LOOKS.items():
        count, of = look(own, calls)
        if count:
            found.append(_finding(kind, name, count, of))
    return found + _of_cuts(name, own, seen, rows)


def findings_by_hand(found: Iterable[tuple[str, int, int]]) -> list[Finding]:
    """Recurrences that are written by hand.

    Args:
        found: Of each module its name, how many of its calls read what it gave before, and of how many.
    """
    kind = "unwatched"
    return [_finding(kind, name, count, of) for name, count, of in found]


def _of_layout(name: str, own: Sequence[Call], seen: Calls) -> list[Finding]:
    """What is wrong with how rows and steps are laid out."""
    for kind, look in (("order", order_in), ("axes", axes_in)):
        count, of = look(own, seen)
        if count:
            return [_finding(kind, name, count, of)]
    return []


def _of_halves(name: str, own: Sequence[Call], calls: Sequence[Call]) -> list[Finding]:
    """Of an LSTM's state only one tensor goes on: from call to call of the whole model, or inside of one."""
    for is_inside in (False, True):
        going_on = [call for call in own if call.trains and _goes_on(call, calls, is_inside=is_inside)]
        count, of = sum(call.entering.is_half_empty for call in going_on), len(going_on)
        if count >= _FEW and count >= _NEARLY_ALL * of:
            return [Finding("state-lost", name, count, of, _HALF_LOST.format(count=f"{count:,}", of=f"{of:,}"))]
    return []


def _goes_on(call: Call, calls: Sequence[Call], *, is_inside: bool) -> bool:
    """Whether a call goes on with what the layer has left, inside of the same call of the whole model or not."""
    if not call.entering.calls:
        return False
    left = calls[max(call.entering.calls)]
    return left.layer == call.layer and (left.root == call.root) is is_inside


def _of_strangers(name: str, own: Sequence[Call], calls: Sequence[Call]) -> list[Finding]:
    """States with which the layer begins, and that no call has left."""
    strange = [call.entering.strange for call in beginnings_in([call for call in own if call.trains], calls)]
    word, count = foreign_in(strange)
    if not count:
        return []
    kind, of = "foreign-state", len(strange)
    return [_finding(kind, name, count, of, what=WORDS[word])]


def _of_evaluations(name: str, leaks: Leaks) -> list[Finding]:
    """States of evaluations with which the training goes on."""
    kind, count, of = "validation-leak", leaks.leaked, leaks.number
    return [_finding(kind, name, count, of)] if count else []


def _of_places(name: str, rows: HandOvers) -> list[Finding]:
    """What is wrong with where rows go on."""
    jumps = {gap: number for gap, number in rows.gaps.items() if isinstance(gap, int) and gap != 0}
    counts = {"lanes-moved": rows.moved, "other-sequence": rows.gaps[OTHER]}
    words = {"sizes": f"{len(jumps):,}", "gap": "", "back": ""}
    if is_shuffled(jumps) and (2 * sum(jumps.values()) >= rows.number or sum(jumps.values()) >= _MANY):
        counts["shuffled"] = sum(jumps.values())
    else:
        for kind, word, sign in (("rows-skip", "gap", 1), ("rows-reread", "back", -1)):
            of_kind = {gap * sign: number for gap, number in jumps.items() if gap * sign > 0}
            counts[kind] = sum(of_kind.values())
            number = max(of_kind, key=lambda gap: of_kind[gap], default=0)
            words[word] = f"{number:,} step{'' if number == 1 else 's'}"
    going_on = rows.beginnings.continued + rows.gaps[0]
    if is_lost(rows.beginnings.lost, rows):
        counts["state-lost"] = rows.beginnings.lost
    return [
        _finding(kind, name, count, of, **words)
        for kind, count in counts.items()
        if count and (of := going_on if kind == "state-lost" else rows.number + rows.moved)
    ]


def _of_numbers(name: str, own: Sequence[Call]) -> list[Finding]:
    """Rows of states and of inputs; they mostly differ in the last call of all, because torch raises there."""
    given = [(call.num_rows, call.entering.num_lanes) for call in own if call.entering.num_lanes and call.num_rows]
    count, of = sum(rows != lanes for rows, lanes in given), len(given)
    if not count:
        return []
    kind = "rows-changed"
    cure = _CURES[any(rows > lanes for rows, lanes in given), any(rows < lanes for rows, lanes in given)]
    return [_finding(kind, name, count, of, cure=cure)]


def _fields_swapped(own: Sequence[Call], calls: Sequence[Call]) -> tuple[int, int]:
    of = count = 0
    for call in own:
        moves: set[tuple[int, int]] = set()  # from one field into another
        given: set[tuple[int, int]] = set()  # the same, by another layer
        for enters, lanes in enumerate(call.entering.origins):
            for number, left in left_by(lanes):
                (moves if calls[number].layer == call.layer else given).add((left, enters))
        if len(call.entering.origins) == 2 and (moves or given):
            of += 1
            # Of another layer's, as an encoder's, only one for the other is a fault, not the same for both.
            count += any(left != enters for left, enters in moves) or {(0, 1), (1, 0)} == given
    return count, of


def _not_detached(own: Sequence[Call], calls: Sequence[Call]) -> tuple[int, int]:
    has_updates = any(call.update for call in calls)  # without an optimiser each call of the whole model is one
    carrying = [call for call in own if call.trains and call.entering.calls]
    reaching = [call for call in own if any(not has_updates or first < last for first, last in call.reaches_back)]
    updates = [{call.update if has_updates else call.root for call in some} for some in (reaching, carrying + reaching)]
    return len(updates[0]), len(updates[1])


def _of_cuts(name: str, own: Sequence[Call], seen: Calls, rows: HandOvers) -> list[Finding]:
    """Of the steps that one backward pass reaches: inside a call of the whole model, or single ones outside of any."""
    cuts = [not call.entering.has_graph for call in _steps_inside(own, seen.calls, rows)]
    kind, count, of = "cut-inside", sum(cuts), len(cuts)
    is_fault = count > 1 and count >= _NEARLY_ALL * of
    return [_finding(kind, name, count, of)] if is_fault else []


def _steps_inside(own: Sequence[Call], calls: Sequence[Call], rows: HandOvers) -> Iterator[Call]:
    for call in own:
        if call.trains and call.reached is not None and call.entering.calls:
            last = calls[max(call.entering.calls)]
            if last.layer == call.layer and last.trains and _are_of_one_chunk(last, call, rows):
                yield call


def _are_of_one_chunk(last: Call, call: Call, rows: HandOvers) -> bool:
    """Whether a call goes on with a chunk. What a script reads again, or elsewhere, outside of any call is none."""
    if last.root == call.root:
        return last.reached == call.reached
    are_steps = last.is_step and call.is_step and are_of_one_pass(last, call)
    return are_steps and rows.goes_on(last, call) is not False


def _of_padding(name: str, own: Sequence[Call]) -> list[Finding]:
    """Answers that hang on padding, that of rows which the layer has read and that which was filled in behind them."""
    found = []
    for is_filled, what in _PADDING.items():
        some = [call for call in own if call.padded is None or call.padded.is_filled == is_filled]
        count, of = padding_read(some)
        is_chance = is_filled and 2 * count < of  # as where a dropout takes all steps of a row
        found += [_finding("padding-read", name, count, of, what=what)] if count and not is_chance else []
    return found


_LOOKS: dict[str, Callable[[Sequence[Call], Sequence[Call]], tuple[int, int]]] = {
    "fields-swapped": _fields_swapped,
    "not-detached": _not_detached,
}
