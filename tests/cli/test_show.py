"""What a training would read is shown before it: from its own stream, whatever the mode."""

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from echo_torch import EXPERIMENTS, configure, generate_sequence
from echo_torch.cli import main
from echo_torch.data import NOT_ASKED
from echo_torch.lab.plan import Plan


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shown(capsys, words=""):
    assert main(["show", *words.split()]) == 0
    return capsys.readouterr().out.splitlines()


def blocks(lines):
    """The rows of each chunk, under its number."""
    found = {}
    for line in lines:
        if head := re.match(r"chunk (\d+), ", line):
            rows = found[int(head[1])] = []
        elif line.startswith("  row "):
            rows.append(line)
    return found


def pairs(rows):
    """Row for row, what is read and what is asked, as numbers and marks."""
    for row in rows:
        middle = re.sub(r"^  row \d+ +(sequence \d+, )?(steps? [\d, to]+?|no step)  ", "", row)
        read, asked = re.sub(r"  (reset|carried).*", "", middle).split("->")
        yield read.split(" + ")[0].split(), asked.split()


@pytest.mark.parametrize("mode", EXPERIMENTS)
@pytest.mark.parametrize("options", [{}, {"missing": 0.3}, {"lag": 0}])
def test_what_is_shown_is_what_the_training_reads(capsys, mode, options):
    options = {name: value for name, value in options.items() if name in EXPERIMENTS[mode].options}
    flags = " ".join(f"--{name} {value}" for name, value in options.items())
    found = blocks(shown(capsys, f"--mode {mode} --batches 3 {flags}"))
    assert list(found) == [0, 1, 2]
    for number, chunk in enumerate(islice(Plan(configure(mode, **options)).training(), 3)):
        for row, (read, asked) in enumerate(pairs(found[number])):
            used = int((chunk.step[row] >= 0).nonzero().max()) + 1
            symbols = [str(n) if n >= 0 else None for n in chunk.symbols[row, :used].tolist()]
            targets = ["." if n == NOT_ASKED else str(n) for n in chunk.targets[row, :used].tolist()]
            for number_shown, mark in zip(symbols, read, strict=False):
                if mark == "...":
                    break
                assert mark == number_shown or (number_shown is None and mark in ".?")
            assert asked[-1] == targets[-1]
            assert len(asked) == 1 or len(asked) == len(read)


def test_a_beginner_sees_the_sequence_its_vectors_and_the_pairs(capsys):
    lines = shown(capsys)
    sequence = generate_sequence()
    assert lines[1] == f"sequence 0, 25 symbols: {sequence}"
    assert lines[3] == f"  {sequence[0]}  [0 0 0 ... 0 1 0 ... 0 0 0]  1 at place {sequence[0]}"
    assert lines[8] == f"decoded, the same: {sequence}"
    rows = blocks(lines)
    assert [len(rows[number]) for number in range(4)] == [5] * 4
    assert next(pairs(rows[1])) == ([str(number) for number in sequence[6:11]], [str(sequence[9])])
    assert rows[0][0].endswith("  reset")
    assert rows[1][0].endswith("  carried from step 5")
    assert lines[-4] == "then chunk 4, sequence 1: reset, every row begins with an empty state"
    assert lines[-3] == "answers in these chunks that their own row has read since its reset: 20 of 20"
    assert lines[-1] == "to train it: python -m echo_torch train --mode lag"


def test_rows_that_skip_steps_say_which(capsys):
    lines = shown(capsys, "--mode stateful")
    assert blocks(lines)[1][0].endswith("carried from step 1, skips steps 2 to 6")
    assert "answers in these chunks that their own row has read since its reset: 0 of 24" in lines
    again = blocks(shown(capsys, "--mode lag --batch-size 2"))
    assert again[1][0].endswith("carried from step 5, reads steps 3 to 5 again")
    two = blocks(shown(capsys, "--mode stateful --batch-size 3"))  # as where a row stands
    assert two[1][0].endswith("carried from step 1, skips steps 2, 3")


def test_marks_are_explained_where_they_occur(capsys):
    def explained(words):
        return [line.split()[0] for line in shown(capsys, words) if re.match(r"  (carried|reset|\.|\?|empty)  ", line)]

    assert explained("") == ["carried", "reset"]
    assert explained("--missing 0.3") == ["carried", "reset", "?"]
    assert explained("--mode whole") == ["carried", "reset", ".", "empty"]
    assert explained("--mode masked") == ["carried", "reset", "."]


def test_only_what_is_missing_has_a_question_mark(capsys):
    """What lies before the sequence was never there."""
    rows = [read for block in blocks(shown(capsys, "--mode masked --missing 0.4")).values() for read, _ in pairs(block)]
    assert [row.count(".") for row in rows] == [4, 3, 2, 1, 0] + [0] * 20
    whole = Plan(configure("masked")).training()
    some = Plan(configure("masked", missing=0.4)).training()
    for number, (one, other) in enumerate(islice(zip(whole, some, strict=True), 5)):
        is_missing = one.symbols != other.symbols
        marks = torch.tensor([[mark == "?" for mark in row] for row in rows[5 * number : 5 * number + 5]])
        assert torch.equal(marks, is_missing)
        assert is_missing.any()


@pytest.mark.parametrize("words", ["--mode lag --sequences 1 --batches 30", "--mode aligned --updates 4"])
def test_nothing_is_shown_behind_the_end_of_the_training(capsys, words):
    lines = shown(capsys, words)
    assert list(blocks(lines)) == [0, 1, 2, 3][: 4 if "lag" in words else 3]
    assert ("then the training ends, after 4 updates" in lines) == ("lag" in words)


@pytest.mark.parametrize("updates", [2, 50])
def test_a_training_that_ends_within_a_sequence_does_not_promise_all_of_it(capsys, updates):
    lines = shown(capsys, f"--length 1000 --updates {updates}")
    assert len(blocks(lines)) == min(updates, 6)
    assert not any("shows them all" in line for line in lines)


def test_lanes_that_reset_at_different_chunks(capsys):
    lines = shown(capsys, "--mode aligned --reset-every 8 --stagger --lanes 4")
    assert "chunk 1, sequences 0, 1, 6, 7: reset in 2 of 4 rows, carried in the others" in lines
    assert [row.split("  ")[-1] for row in blocks(lines)[1]] == [
        "carried from step 4",
        "carried from step 6",
        "reset",
        "reset",
    ]


def test_a_step_and_a_symbol_are_one(capsys):
    assert shown(capsys, "--mode stateful --batch-size 2 --batches 2")[-6].endswith("carried from step 2, skips step 3")
    lines = shown(capsys, "--mode whole --length 1 --lag 0")
    assert lines[1].startswith("sequence 0, 1 symbol: [")


def test_a_row_that_is_not_used(capsys):
    assert blocks(shown(capsys, "--batch-size 7"))[2][-1] == "  row 6  not used"


def test_many_rows_and_long_sequences_are_cut(capsys):
    lines = shown(capsys, "--mode aligned --lanes 1000 --chunk 50")
    assert lines.count("  ... 994 more rows") == 3
    assert lines[1].startswith("sequence 0, its first 30 symbols: ")
    assert max(map(len, lines)) < 170
    lines = shown(capsys, "--length 1000")
    assert list(blocks(lines)) == [*range(6)]
    assert "the sequence has 199 chunks: --batches 199 shows them all" in lines
    assert not any("shows them all" in line for line in shown(capsys))
    assert list(blocks(shown(capsys, "--length 1000 --batches 9"))) == [*range(9)]


def test_a_million_symbols_are_digits(capsys):
    lines = shown(capsys, "--vocabulary-size 1000000 --seed 3")
    assert lines[0].startswith("asked: say the symbol 1 step ago (one of 1,000,000 symbols)")
    sequence = generate_sequence(25, 10**6, seed=3)
    assert lines[2] == "encoded, as 6 digits of base 10, each one-hot: 60 numbers for each symbol:"
    assert lines[3].split()[0] == str(sequence[0])
    assert lines[3].endswith(" ".join(f"{sequence[0]:06}"))
    assert lines[8] == f"decoded, the same: {sequence}"


def test_what_is_decoded_is_computed(capsys, monkeypatch):
    monkeypatch.setattr("echo_torch.lab.vectors.most_likely", lambda vector, num_digits: torch.tensor(3))
    assert shown(capsys)[8] == f"decoded, not the same: {[3] * 25}"


def test_numbers_of_ones_own(capsys):
    Path("own.txt").write_text(" ".join(map(str, range(1, 38))))
    lines = shown(capsys, "--data own.txt --mode aligned --lanes 3")
    assert lines[1] == f"sequence 0, 12 symbols: {[*range(1, 13)]}"
    assert lines[0].endswith(", from own.txt")
    assert list(pairs(blocks(lines)[1]))[2] == (["30", "31", "32", "33", "34"], ["29", "30", "31", "32", "33"])
    assert lines[-1].endswith("train --mode aligned --vocabulary-size 38 --lanes 3 --data own.txt")


def test_of_a_model_of_ones_own_no_vectors_are_known(capsys):
    lines = shown(capsys, "--model nowhere.at_all:Net")
    assert lines[2] == ""
    assert not any("decoded" in line for line in lines)


def test_json_says_none_where_a_number_stands_for_nothing(capsys):
    (line,) = shown(capsys, "--mode whole --batches 2 --missing 0.3 --json")
    found = json.loads(line)
    first = next(iter(Plan(configure("whole", missing=0.3)).training()))
    chunk = found["chunks"][0]
    assert len(found["chunks"]) == 2
    assert found["symbols"] == generate_sequence()
    assert found["options"]["missing"] == 0.3
    for name, nothing in (("symbols", -1), ("targets", NOT_ASKED), ("step", -1)):
        expected = getattr(first, name)
        assert torch.equal(torch.tensor([[nothing if n is None else n for n in row] for row in chunk[name]]), expected)
    assert "-1" not in line
    assert NOT_ASKED not in chunk["targets"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--batches 0", "--batches must be a whole number between 1 and 10000. Got 0."),
        ("--batches x", "--batches must be a whole number. Got 'x'."),
        ("--mode lagg", "did you mean 'lag'"),
        ("--lag 7", "--lag must be smaller than --window"),
        ("--mode echo --window 3", "--window is always 1 in mode echo"),
        ("--data words.txt", "'words.txt' line 1: every entry must be a whole number"),
        ("--data words.txt --vocabulary-size 9", "'words.txt' line 1: every entry must be a whole number"),
        ("--data none.txt", "Cannot read 'none.txt'"),
        ("--run-dir x", "There is no flag or argument '--run-dir' here"),
    ],
)
def test_bad_input_is_one_sentence(capsys, words, said):
    Path("words.txt").write_text("a b c\n")
    assert main(["show", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_nothing_is_waited_for_that_only_a_training_needs():
    program = (
        "import sys; from echo_torch.cli import main; main(['show'])\n"
        "print([name for name in ('pytorch_lightning', 'torch._dynamo', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert found.stderr == ""
