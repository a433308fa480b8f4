import pytest

from echo_torch import configure
from echo_torch.experiments.configuration import command_line, replace
from echo_torch.intervals import wilson_interval
from echo_torch.lab.plan import Plan
from echo_torch.lab.report import (
    ahead_line,
    answer_line,
    chunk_line,
    chunks_differ,
    conclusion_lines,
    cures_of,
    explanation_lines,
    interferes,
    result_lines,
    state_line,
    trend_line,
)


def result_of(c, by_chunk, reset_by_chunk=None, targets=5000):
    """The evaluation's part of result.json, from the accuracy of each chunk of a sequence, every one asked alike."""
    reset_by_chunk = by_chunk if reset_by_chunk is None else reset_by_chunk
    result = {"ceiling": Plan(c).reach().ceiling, "chance": 1 / c.vocabulary_size, "loss": 1.0}
    result |= {"targets": targets * len(by_chunk), "targets_by_chunk": [targets] * len(by_chunk)}
    for name, shares in (("accuracy", by_chunk), ("accuracy_reset", reset_by_chunk)):
        correct = sum(round(share * targets) for share in shares)
        low, high = wilson_interval(correct, result["targets"])
        accuracy = correct / result["targets"]
        result |= {name: accuracy, f"{name}_low": low, f"{name}_high": high, f"{name}_by_chunk": shares}
    return result


RISING = {"accuracy": [0.1] * 6 + [0.2] * 2 + [0.4] * 2, "targets": [2000.0] * 10}


def conclude(mode, by_chunk, reset_by_chunk=None, **options):
    c = configure(mode, **options)
    return conclusion_lines(c, Plan(c).reach(), result_of(c, by_chunk, reset_by_chunk), RISING)


LEARNED = "what could be learned was learned"
NOTHING = "no training could have learned anything"
CHANCE = "This is chance, although the data path allows"
BELOW = "This is below chance"
BETWEEN = "lies between chance and the ceiling"
SEES = "symbols alone; the answer lies 5 back"
SEES_ONE = "the current symbol alone"
IN_THE_WAY = "the carried state is in the way (interference)"
NOT_ALL = "that is not all that is missing"
NEEDED = "a state must be carried all the same"
RESET = "--carry reset"
UNCUT = "--cut sequence"
NO_GRADIENT = "no gradient gets from a question to where its answer was read"
FADES = "little in the last"
COSTS = "a small part"
NONE_SEEN = "no interference is seen"
WHAT_IS_LEFT = "what is left is the training"
TREND = "it was still rising"
UNCUT_OPTION = {"cut": "sequence"}
SENTENCES = (
    LEARNED, NOTHING, CHANCE, BELOW, BETWEEN, SEES, SEES_ONE, IN_THE_WAY, NOT_ALL, NEEDED, RESET, UNCUT, NO_GRADIENT,
    FADES, COSTS, NONE_SEEN, WHAT_IS_LEFT, TREND,
)  # fmt: skip


# The accuracies by chunk are those that such runs had: each sentence stands where it is true, and nowhere else.
@pytest.mark.parametrize(
    ("run", "sentences"),
    [
        # lag 4: right from an empty state, wrong after a hand-over, right again with the state reset
        (("lag", [0.966, 0.016, 0.080, 0.043], [0.966, 0.974, 0.966, 0.963], {"lag": 4}), [IN_THE_WAY, RESET, UNCUT]),
        # the same too short, and without the cut too short: the state is in the way, and training is missing too
        (
            ("lag", [0.06, 0.02, 0.02, 0.02], [0.06] * 4, {"lag": 4, "sequences": 300}),
            [IN_THE_WAY, NOT_ALL, RESET, UNCUT, TREND],
        ),
        (
            ("lag", [0.35, 0.11, 0.12, 0.12], [0.35] * 4, {"lag": 4, "cut": "sequence"}),
            [IN_THE_WAY, NOT_ALL, RESET, TREND],
        ),
        # lag 1 stopped early: a hand-over costs a little, and training on gains the rest
        (
            ("lag", [0.551, 0.505, 0.507, 0.506], [0.551] * 4, {"sequences": 500}),
            [BETWEEN, COSTS, WHAT_IS_LEFT, TREND],
        ),
        (("lag", [1.0] * 4, None, {"lag": 4, "carry": "reset"}), [LEARNED]),
        (("lag", [0.998, 0.991, 0.991, 0.991], [0.998] * 4, {}), [LEARNED]),
        (
            ("lag", [0.844, 0.832, 0.836, 0.839], [0.844, 0.836, 0.842, 0.844], {"hidden_size": 25}),
            [BETWEEN, NONE_SEEN, WHAT_IS_LEFT, TREND],
        ),
        # without a carried state the first windows of `masked` are easier: nothing fades
        (
            ("masked", [0.651, 0.55, 0.55, 0.55, 0.549], None, {"carry": "reset"}),
            [BETWEEN, NONE_SEEN, WHAT_IS_LEFT, TREND],
        ),
        # nor does it where the best chunk begins from an empty state, or is as good with one
        (
            ("lag", [0.6, 0.1, 0.1, 0.1], [0.6, 0.1, 0.1, 0.101], {}),
            [BETWEEN, NONE_SEEN, WHAT_IS_LEFT, TREND],
        ),
        (
            ("lag", [0.1, 0.6, 0.1, 0.1], [0.1, 0.6, 0.1, 0.101], {}),
            [BETWEEN, NONE_SEEN, WHAT_IS_LEFT, TREND],
        ),
        (
            ("masked", [0.1, 0.6, 0.1, 0.1, 0.1], None, {"carry": "reset"}),
            [BETWEEN, NONE_SEEN, WHAT_IS_LEFT, TREND],
        ),
        # chunks of one step that learn, at a small learning rate and a small vocabulary, and that do not
        (("aligned", [0.97] * 10, [0.1] * 10, {"chunk": 1, "vocabulary_size": 10}), [BETWEEN, NO_GRADIENT, TREND]),
        (
            ("aligned", [0.01, 0.97, 0.56, *[0.07] * 7], [0.01] * 10, {"chunk": 1}),
            [BETWEEN, NO_GRADIENT, FADES, TREND],
        ),
        (("aligned", [0.40] * 10, [0.1] * 10, {"chunk": 1, "vocabulary_size": 10}), [BETWEEN, NO_GRADIENT, TREND]),
        # stateful at lag 6: the first hand-over is right, when the state holds one symbol
        (
            ("stateful", [0.013, 0.999, 0.077, 0.026], [0.01] * 4, {"lag": 6}),
            [BETWEEN, NO_GRADIENT, FADES, TREND],
        ),
        # a reset state can answer nothing here, so it tells nothing of interference
        (
            ("stateful", [0.01, 0.2, 0.2, 0.2], [0.01] * 4, {"lag": 6, "cut": "sequence"}),
            [BETWEEN, WHAT_IS_LEFT, TREND],
        ),
        (("stateful", [0.01] * 4, [0.01] * 4, {}), [NOTHING]),
        (("aligned", [1.0] * 10, [0.8] * 10, {}), [LEARNED]),
        (("aligned", [0.01] * 10, [0.01] * 10, {"lag": 2}), [CHANCE, NONE_SEEN, WHAT_IS_LEFT, TREND]),
        (("aligned", [0.002] * 10, [0.002] * 10, {"lag": 2}), [BELOW, NONE_SEEN, WHAT_IS_LEFT, TREND]),
        (("aligned", [0.01] * 10, [0.01] * 10, {"lag": 2, "chunk": 2}), [CHANCE, NO_GRADIENT, TREND]),
        (("aligned", [0.01] * 10, None, {"model": "mlp", "lag": 5}), [SEES]),
        (("aligned", [0.01] * 10, None, {"model": "memoryless"}), [SEES_ONE]),
        # an MLP is shown what it is asked for, whatever the chunk
        (("aligned", [0.5] * 10, [0.1] * 10, {"model": "mlp", "lag": 4, "chunk": 1}), [BETWEEN, WHAT_IS_LEFT, TREND]),
        # the answers need the state that is in the way: a reset is no cure
        (("aligned", [0.2] * 10, [0.4] * 10, {"chunk": 10, "lag": 5}), [IN_THE_WAY, NOT_ALL, NEEDED, TREND]),
    ],
)
def test_each_sentence_stands_where_it_is_true_and_nowhere_else(run, sentences):
    mode, by_chunk, reset, options = run
    lines = conclude(mode, by_chunk, reset, **options)
    text = " ".join(lines)
    assert [sentence for sentence in SENTENCES if sentence in text] == sentences
    assert (lines[-1].startswith("for example: ")) == (RESET in sentences)


def test_interference_is_told_in_numbers_and_its_cures_are_commands():
    c = configure("lag", lag=4)
    text = conclude("lag", [0.966, 0.016, 0.080, 0.043], [0.966, 0.974, 0.966, 0.963], lag=4)[0]
    assert text.startswith("It answers 96.6% from an empty state and 4.6% after a hand-over, and 96.7% with the state")
    cures = cures_of(c, Plan(c).reach())
    updates = "--updates 8000"
    assert [cure.flags for cure in cures] == [
        "--carry reset",
        f"--batch-size 20 {updates}",
        f"--cut sequence {updates}",
    ]
    for cure in cures:
        assert cure.flags in text
        assert cure.command.startswith("python -m echo_torch train --mode lag ")
        assert set(cure.flags.split()) < set(cure.command.split())


def test_the_flags_of_a_cure_can_be_added_to_the_run_they_mend():
    for options in ({"lag": 4}, {"lag": 4, "cut": "sequence", "updates": 1200}, {"lag": 2, "sequences": 300}):
        c = configure("lag", **options)
        for cure in cures_of(c, Plan(c).reach()):
            words = cure.flags.replace("--", "").split()
            changes = {name.replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
            changes |= {"sequences": None} if "updates" in changes else {}
            assert command_line(replace(c, **changes)) == cure.command


@pytest.mark.slow
def test_a_chunk_that_would_be_too_large_is_no_cure():
    long = configure("lag", lag=4, window=60, length=5000, sequences=1)  # without the cut it would be one chunk
    assert [cure.flags for cure in cures_of(long, Plan(long).reach())] == ["--carry reset"]


def test_cures_that_are_none_are_left_out():
    for c in (configure("aligned", chunk=10, lag=5), configure("lag", carry="reset"), configure("whole")):
        assert cures_of(c, Plan(c).reach()) == []


def test_chunks_that_differ_by_more_than_sampling_get_a_line():
    c = configure("lag")
    alike, apart = result_of(c, [0.844, 0.832, 0.836, 0.839]), result_of(c, [0.966, 0.016, 0.080, 0.043])
    assert (chunks_differ(alike), chunks_differ(apart)) == (False, True)
    assert chunk_line(apart) == "accuracy by chunk of the sequence: 96.6%, 1.6%, 8.0%, 4.3%"
    long = {"accuracy_by_chunk": [None, *[0.5] * 20, 1.0], "targets_by_chunk": [0, *[5] * 21]}
    assert chunk_line(long).endswith(" -, " + "50.0%, " * 7 + "..., 100.0%")
    for result, is_shown in ((alike, False), (apart, True)):
        assert any("by chunk" in line for line in result_lines(result, [], [])) == is_shown
        assert any("by chunk" in line for line in result_lines(result, [], [], always_by_chunk=True))


def test_the_reset_evaluation_gets_a_line_where_it_differs():
    c = configure("lag")
    assert not any("state reset" in line for line in result_lines(result_of(c, [0.5] * 4), [], []))
    line = result_lines(result_of(c, [0.5] * 4, [0.6] * 4), [], [])[1]
    assert line == "the same weights with the state reset at every chunk: 60.00% (95 % interval 59.32% to 60.68%)"


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ([0.1] * 6 + [0.2] * 2 + [0.4] * 2, "40.0% in the last fifth of the updates and 20.0% in the fifth before: it"),
        ([0.1] * 6 + [0.4] * 2 + [0.2] * 2, "it was falling"),
        ([0.1] * 6 + [0.400, 0.402, 0.405, 0.401], "it did not move beyond sampling"),
    ],
)  # fmt: skip
def test_the_trend_is_that_of_the_last_rows(accuracies, words):
    assert words in trend_line({"accuracy": accuracies, "targets": [2000.0] * 10})


def test_no_trend_from_too_few_rows_or_without_questions():
    assert trend_line({"accuracy": [0.5] * 4, "targets": [100.0] * 4}) is None
    assert trend_line({"accuracy": [float("nan")] * 10, "targets": [0.0] * 10}) is None


def test_no_ceiling_no_claim():
    c = configure("lag", lag=4)
    found, result = Plan(c).reach(), {**result_of(c, [0.5] * 4), "ceiling": None}
    lines = conclusion_lines(c, found, result, RISING)
    assert "not known" in lines[0]
    assert TREND in lines[1]
    other = {**result_of(c, [0.9, 0.1, 0.1, 0.1], [0.9] * 4), "ceiling": None}
    assert IN_THE_WAY in conclusion_lines(c, found, other, RISING)[0]


def test_nothing_asked_nothing_concluded():
    c = configure("lag", lag=4)
    result = {**result_of(c, [0.5] * 4), "accuracy": None, "accuracy_reset": None}
    assert conclusion_lines(c, Plan(c).reach(), result, RISING) == ["Nothing was asked."]
    assert result_lines(result, [], []) == ["accuracy: nothing was asked"]
    assert not interferes(result)


def test_the_last_place_of_lanes_is_named():
    result = {"accuracy_by_chunk": [0.5, 0.6, 0.7], "targets_by_chunk": [32, 32, 9000]}
    assert chunk_line(result).endswith(": 50.0%, 60.0%, 70.0% (the last: with all later ones)")


def test_ahead_claims_randomness_only_where_it_was_measured():
    assert "drawn independently" in ahead_line(102, 10_000, 100)
    assert "not random" in ahead_line(300, 10_000, 100)


def test_a_list_is_read_from_a_state_that_is_named():
    line = state_line(configure("lag"), 25, is_carried=True)
    assert line == "state: carried from batch to batch, windows of 5 in batches of 5; as in the training of this run"
    assert state_line(configure("lag"), 26, is_carried=True) == f"{line}, but for the reset after every 25 numbers"
    line = state_line(configure("lag"), 26, is_carried=False)
    assert line == "state: fresh for every window of 5; not as in the training of this run"
    assert state_line(configure("lag", carry="reset"), 9, is_carried=False).endswith("; as in the training of this run")
    assert state_line(configure("aligned"), 9000, is_carried=True).endswith(
        "chunk of 5; as in the training of this run"
    )
    assert state_line(configure("whole"), 9, is_carried=False).startswith("state: fresh for every list, read in one")


def test_answers_and_explanations():
    assert answer_line(2, 1, [7, 8, 9], 8, [(8, 0.5)]) == "after position 2: 8 for position 1, right; 8 (50.0%)"
    assert answer_line(2, 1, [7, 8, 9], 3, []) == "after position 2: 3 for position 1, the number there is 8"
    assert explanation_lines([7], []) == []
    assert explanation_lines([7], [0.5])[1] == "  position 0, 7: in 50% of the replacements ##########"


@pytest.mark.parametrize(
    ("vocabulary_size", "words"), [(10, "chance 10.00%"), (100, "chance 1.00%"), (10**6, "chance 0.0001%")]
)
def test_chance_is_never_told_as_nothing(vocabulary_size, words):
    result = {**result_of(configure("lag"), [0.5] * 4), "chance": 1 / vocabulary_size}
    assert result_lines(result, [], [])[0].endswith(words)


def test_nor_is_it_in_what_follows():
    assert conclude("stateful", [0.0] * 4, vocabulary_size=10**6)[0].startswith(
        "The ceiling of the data path is chance, 0.0001%: "
    )
    assert "; chance is 0.0001%: " in ahead_line(0, 10_000, 10**6)
