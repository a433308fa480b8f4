"""`watch` where sequences move to other rows: the states stay behind, or move along."""

import pytest
import torch
from support.loops import Reader, detached, train

from echo_torch import watch

LANES, LENGTH, SYMBOLS = 3, 5, 40


def streams(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(SYMBOLS, (length,), generator=generator) for length in lengths]


def chunks_of(stream):
    return list(stream.split(LENGTH))


def compacted(files):
    """A file that has ended is taken out, and those behind it move up."""
    queues = [chunks_of(file) for file in files]
    while len(queues) >= LANES:
        yield torch.stack([queue.pop(0) for queue in queues[:LANES]])
        queues = [queue for queue in queues if queue]


def sorted_by_what_is_left(files):
    """The longest first, as for packing, whenever the order has changed."""
    queues = [chunks_of(file) for file in files]
    while all(queues):
        queues.sort(key=len, reverse=True)
        yield torch.stack([queue.pop(0) for queue in queues])
        queues[0].pop(0) if len(queues[0]) % 4 == 3 and len(queues[0]) > 1 else None


def rotated(text):
    """One array of rows, whose rows are turned by one at each third batch."""
    rows = text.view(LANES, -1)
    for number, chunk in enumerate(rows.split(LENGTH, dim=1)):
        yield chunk.roll(number // 3, 0)


def chunks_rotated():
    """The same of an array of chunks."""
    for number, chunk in enumerate(torch.randint(SYMBOLS, (16, LANES, LENGTH))):
        yield chunk[torch.arange(LANES).roll(number // 4)]


LONG = torch.randint(SYMBOLS, (LANES * LENGTH * 20,), generator=torch.Generator().manual_seed(2))
FAULTY = {
    "compacted": (lambda: compacted(streams(60, 100, 90, 75, 80, 110)), {"lanes-moved", "other-sequence"}),
    "an upper row ends": (lambda: compacted(streams(100, 40, 100, 100)), {"lanes-moved", "other-sequence"}),
    "turned": (lambda: rotated(LONG), {"lanes-moved"}),
    "an array of chunks, turned": (lambda: chunks_rotated(), {"lanes-moved"}),
}


@pytest.mark.parametrize("name", FAULTY)
def test_states_that_stay_behind(name):
    batches, expected = FAULTY[name]
    with watch() as seen:
        train(Reader(symbols=SYMBOLS, batch_first=True), batches())
    found = {finding.kind: finding for finding in seen.faults}
    assert "lanes-moved" in found
    assert set(found) <= expected
    assert seen.faults[0].kind == "lanes-moved"  # before any gap
    assert 0 < found["lanes-moved"].count < found["lanes-moved"].of


def test_how_many_rows_have_moved():
    """Twenty batches, turned after each third: six times three rows."""
    with watch() as seen:
        train(Reader(symbols=SYMBOLS, batch_first=True), rotated(LONG))
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("lanes-moved", 18, 57)]


# --- healthy ----------------------------------------------------------------------------------------------------


def states_that_move_along(model):
    """Each chunk is turned, and the state with it."""
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for number, chunk in enumerate(LONG.view(LANES, -1).split(LENGTH, dim=1)):
        state = None if state is None else state[:, torch.arange(LANES).roll(1)]
        output, state = model(chunk.roll(number, 0), state)
        optimizer.zero_grad()
        output.square().mean().backward()
        optimizer.step()
        state = detached(state)


def states_of_their_own(model):
    """A state for each file, put together in the order of the batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    files = streams(60, 80, 70, 90, 100)
    queues = [(chunks_of(file), [torch.zeros(1, 1, 5)]) for file in files]
    while len(queues) >= LANES:
        rows = queues[:LANES]
        state = torch.cat([held[-1] for _, held in rows], dim=1)
        output, state = model(torch.stack([queue.pop(0) for queue, _ in rows]), state)
        optimizer.zero_grad()
        output.square().mean().backward()
        optimizer.step()
        for lane, (_, held) in enumerate(rows):
            held.append(state[:, lane : lane + 1].detach())
        queues = [(queue, held) for queue, held in queues[1:] + queues[:1] if queue]


def rows_that_start_anew(model):
    """A file that has ended makes room in its own row, whose state is emptied."""
    queues, waiting = [chunks_of(file) for file in streams(60, 80, 70)], streams(40, 50, 60)
    state = None
    while True:
        begins = [not queue for queue in queues]
        if sum(begins) > len(waiting):
            return
        for queue in queues:
            queue.extend([] if queue else chunks_of(waiting.pop(0)))
        if state is not None:
            state = state.masked_fill(torch.tensor(begins).view(1, -1, 1), 0.0)
        state = train(model, [torch.stack([queue.pop(0) for queue in queues])], state=state)


def passes_over_one_text(model):
    """At the end of a pass each row begins again where the row before it stopped; each pass has a state of its own."""
    for _ in range(3):
        train(model, LONG.view(LANES, -1).split(LENGTH, dim=1))


def beams(model):
    """Rows are chosen again at each step, states and what they have read alike."""
    rows = LONG.view(LANES, -1)
    train(model, rows[:, :20].split(LENGTH, dim=1))
    model.eval()
    with torch.no_grad():
        state, chosen = None, torch.arange(LANES)
        for step in range(20):
            _, state = model(rows[chosen, step : step + 1], state)
            pick = torch.tensor([2, 0, 0])
            state, chosen = state[:, pick], chosen[pick]


HEALTHY = [states_that_move_along, states_of_their_own, rows_that_start_anew, passes_over_one_text, beams]


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_loops_in_which_none_is_left_behind(loop):
    with watch() as seen:
        loop(Reader(symbols=SYMBOLS, batch_first=True))
    assert seen.faults == []
    assert seen._calls.calls


def test_a_new_pass_with_the_old_state_is_no_move():
    """Row 1 begins again where row 0 stopped: the text is read once more."""

    def passes():
        for _ in range(3):
            yield from LONG.view(LANES, -1).split(LENGTH, dim=1)

    with watch() as seen:
        train(Reader(symbols=SYMBOLS, batch_first=True), passes())
    assert [(finding.kind, finding.count) for finding in seen.faults] == [("rows-reread", 2 * LANES)]


def test_the_first_of_consecutive_windows_is_no_move():
    """It goes on where the last row of the batch before stopped."""
    for lanes in (2, 3, 6):
        with watch() as seen:
            train(Reader(symbols=SYMBOLS, batch_first=True), LONG.view(-1, LENGTH).split(lanes))
        assert [finding.kind for finding in seen.faults] == ["rows-skip"], lanes
