"""What `explain` says of a path: first what is wrong with it, then whether answers were read, and how far back."""

import numpy as np
import pytest

from echo_torch import EXPERIMENTS, Stamps, configure, explain, reach
from echo_torch.diagnosis.data_path.explaining import reach_lines
from echo_torch.experiments.configuration import memory_length
from echo_torch.lab.plan import Plan


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_the_sentence_follows_from_the_numbers(mode):
    found = Plan(configure(mode)).reach()
    text = explain(found)
    assert ("never read" in text) == (found.reachable_share == 0)
    assert ("skips" in text) == ("rows-skip" in found.faults)
    assert text.endswith(".")
    assert "gradient" not in text


NEVER = "has never read it"
ALL_NEAR = "It was read within the same chunk, so nothing need be handed over for it; whether the state has room"
IN_THE_WAY = "whether what is handed over gets in its way"
SHOWN = "This network is shown the last 5 symbols, and the answer is among them"
NOT_SHOWN = "This network is shown the current symbol, and the answer is not among them"
SOME_NEAR = "% of these were read within the same chunk"
FAR = "always read in an earlier chunk: if the state is detached between chunks, nothing shapes it for the answer"
SKIPS = "A row skips 5 steps at every hand-over"
SOME = "Only for "
NOT_ASKED = "Nothing is asked"


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        ({"mode": "stateful"}, [SKIPS, NEVER]),
        ({"mode": "lag", "lag": 4}, [ALL_NEAR, IN_THE_WAY]),
        ({"mode": "aligned", "chunk": 1, "model": "mlp"}, [SHOWN]),
        ({"mode": "aligned", "model": "memoryless"}, [NOT_SHOWN]),
        ({"mode": "whole"}, [ALL_NEAR]),
        ({"mode": "lag", "lag": 4, "carry": "reset"}, [ALL_NEAR]),
        ({"mode": "aligned"}, [SOME_NEAR]),
        ({"mode": "aligned", "chunk": 1, "vocabulary_size": 10, "learning_rate": 1e-3}, [FAR]),
        ({"mode": "aligned", "lag": 5}, [FAR]),
        ({"mode": "stateful", "lag": 6}, [SKIPS, FAR, SOME]),
    ],
)
def test_each_sentence_stands_where_it_is_true_and_nowhere_else(options, sentences):
    c = configure(**options)
    text = explain(Plan(c).reach(), memory_length=memory_length(c), is_carried=c.reading.carry == "keep")
    parts = (SKIPS, NEVER, ALL_NEAR, IN_THE_WAY, SOME_NEAR, FAR, SOME, SHOWN, NOT_SHOWN, NOT_ASKED)
    assert [part for part in parts if part in text] == sentences


def rows(start, num_rows=2, steps=5):
    """Each row reads a stretch of its own, a thousand steps apart."""
    return np.arange(num_rows)[:, None] * 1000 + np.arange(start, start + steps)


def look(batches, lag=None):
    return reach(
        batches, lag, is_repeated=False, stamps=lambda batch: batch if isinstance(batch, Stamps) else Stamps(batch)
    )


IN_ORDER = [rows(start) for start in range(0, 200, 5)]
ORDER = np.random.default_rng(0).permutation(len(IN_ORDER))
SHUFFLED = [IN_ORDER[number] for number in ORDER]
JUMPS = 2 * int((np.diff(ORDER) != 1).sum())  # of two rows
NUM_GAPS = len(set((np.diff(ORDER) - 1).tolist()) - {0})


@pytest.mark.parametrize(
    ("batches", "faults", "first"),
    [
        (IN_ORDER, (), "Every answer was read before by the row that is asked for it, but for 1.0% of the targets, "),
        (IN_ORDER[::2], ("rows-skip",), "A row skips 5 steps at every hand-over from chunk to chunk. "),
        (
            [rows(start) for start in range(0, 200, 4)],
            ("rows-reread",),
            "A row reads 1 step again at every hand-over from chunk to chunk. ",
        ),
        (
            [*IN_ORDER[:20], *IN_ORDER[21:]],
            ("rows-skip",),
            "A row skips 5 steps at 2 of 76 hand-overs from chunk to chunk (2.6%). ",
        ),
        (
            [*IN_ORDER[:20], *IN_ORDER[21:30], *IN_ORDER[32:]],
            ("rows-skip",),
            "A row skips steps at 4 of 72 hand-overs from chunk to chunk (5.6%), most often 5. ",
        ),
        (
            SHUFFLED,
            ("shuffled",),
            f"The chunks are shuffled: at {JUMPS} of 78 hand-overs from chunk to chunk ({JUMPS / 78:.1%}) a row jumps",
        ),
        (
            [Stamps(rows(0), sequence=[2 * number, 2 * number + 1]) for number in range(3)],
            ("other-sequence",),
            "At every hand-over from chunk to chunk a row goes on into another sequence without a reset. ",
        ),
        (
            [rows(0), rows(5), rows(10, num_rows=1), rows(15)],
            ("rows-changed", "rows-skip"),
            "The number of rows changes without a reset (1 and 2; 2 times, first at chunk 2), and a state fits no",
        ),
        (
            [[[0, 2, 4]], [[6, 8, 10]]],
            ("rows-skip",),
            "A row skips 1 step at every hand-over inside the chunks and between",
        ),
        (
            [[[0, 2, 4]], [[5, 7, 9]]],
            ("rows-skip",),
            "A row skips 1 step at 4 of 5 hand-overs inside the chunks (80.0%). ",
        ),
    ],
)
def test_what_is_wrong_with_the_path_comes_first(batches, faults, first):
    found = look(batches, 2)
    assert found.faults == faults
    assert explain(found).startswith(first)
    assert "gradient" not in explain(found)
    assert found.to_dict()["faults"] == list(faults)


def test_what_lies_between_two_passes_comes_last():
    found = reach(IN_ORDER, 2, stamps=lambda batch: Stamps(batch))
    assert found.faults == ()
    assert explain(found).endswith(
        " Between two passes over the data the state must be reset: there a row reads 200 steps again."
    )
    assert reach_lines(found)[1] == "gap to a second pass, if no state is reset there: -200 (2 times)"
    reset_there = [Stamps(batch, starts=[number == 0] * 2) for number, batch in enumerate(IN_ORDER)]
    assert "two passes" not in explain(reach(reset_there, 2, stamps=lambda batch: batch))


UNKNOWN = "Neither a lag nor the places of answers are given, so gaps are all that is known."


def test_without_a_lag_gaps_alone_are_said():
    found = look(IN_ORDER)
    assert explain(found) == f"Each row goes on where it stopped (398 hand-overs). {UNKNOWN}"
    assert "answers: unknown, because neither a lag nor their places are given, of 400 targets in 40 chunks" in (
        reach_lines(found)
    )
    assert explain(look(SHUFFLED)).endswith(f" a row jumps, by {NUM_GAPS} different gaps. {UNKNOWN}")
    assert explain(look([[[0]]])).startswith("Nothing is handed over: ")


def test_answers_that_were_never_read_and_nothing_asked():
    never = [Stamps([[0, 1]], answers=[[5, 6]])]
    assert explain(look(never)) == "A row that is asked for an answer has never read it."
    assert explain(look([Stamps([[0, 1]], is_asked=[[False, False]])], 1)).startswith("Nothing is asked")


@pytest.mark.parametrize(
    ("batches", "line"),
    [
        (IN_ORDER, "gap: 0, each row goes on where it stopped (398 hand-overs)"),
        ([[[0, 2]]], "gap: 1, a row skips 1 step at a time (1 hand-over)"),
        ([[[0]]], "gap: none, nothing is handed over"),
        (
            [*IN_ORDER[:20], *IN_ORDER[22:], IN_ORDER[0]],
            "gap: 0 at 384 of 388 hand-overs (99.0%); else -200 (2 times), 10 (2 times)",
        ),
        (
            [Stamps([[0]], sequence=[number]) for number in range(3)],
            "gap: other, a row goes on into another sequence (2 hand-overs)",
        ),
    ],
)
def test_what_is_usual_and_what_is_rare(batches, line):
    assert reach_lines(look(batches, 2))[0] == line


def test_a_rare_gap_is_not_rounded_away():
    batches = [np.arange(40_000)[None], np.arange(40_001, 80_000)[None]]
    assert reach_lines(look(batches))[0] == "gap: 0 at 79,997 of 79,998 hand-overs (99.999%); else 1 (once)"


def test_many_gaps_are_one_word_and_the_five_commonest():
    line = reach_lines(look(SHUFFLED, 2))[0]
    share = f"{JUMPS / 398:.1%}"
    assert line.startswith(
        f"gap: shuffled, {JUMPS} of 398 hand-overs jump ({share}), by {NUM_GAPS} different gaps; the commonest: "
    )
    assert line.endswith(f", and {NUM_GAPS - 5} other gaps")
    assert line.count("times)") == 5


def test_rows_and_empty_batches_have_lines():
    lines = reach_lines(look([rows(0), rows(5, num_rows=1), rows(0, steps=0)], 0))
    assert "rows: 1 (1 chunk), 2 (1 chunk)" in lines
    assert lines[-1] == "empty: chunk 2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"found": None}, "`found` must be what `reach` or `reach_of` has returned. Got NoneType; write"),
        ({"memory_length": 0}, "`memory_length` must be a whole number of at least 1. Got 0"),
        ({"memory_length": "4"}, "`memory_length` must be a whole number of at least 1. Got '4'"),
    ],
)
def test_what_cannot_be_explained(arguments, message):
    found = reach([[[0, 1], [4, 5]]], stamps=Stamps)
    with pytest.raises(ValueError, match=message):
        explain(**{"found": found, **arguments})
