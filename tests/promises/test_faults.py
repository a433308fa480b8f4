"""benchmarks/faults: every public fault has a mended twin that runs, and a tool is scored by what is true."""

import difflib
import doctest
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import running
import score as scorer
from running import Tool, ToolError, without_docstring
from score import CASES, FAULTS, main, programs, score

EXPECTED = json.loads((CASES / "expected.json").read_text())
FAULTY = sorted(file for file, expected in EXPECTED.items() if expected["right"] or expected["also"])
KINDS = [
    "rows-skip", "rows-reread", "shuffled", "other-sequence", "state-lost", "lanes-moved", "rows-changed",
    "fields-swapped", "axes", "order", "not-detached", "cut-inside", "padding-read", "validation-leak", "foreign-state",
    "unwatched",
]  # fmt: skip
MOST_CHANGED_LINES = 15


def test_what_is_expected_is_said_of_every_case():
    assert set(EXPECTED) == {path.name for path in CASES.glob("*.py")}
    assert sum(bool(expected["right"]) for expected in EXPECTED.values()) == 18
    assert [file for file in FAULTY if not EXPECTED[file]["right"]] == ["22_resume_mid_epoch.py"]
    assert len(EXPECTED) - len(FAULTY) == 4
    assert {kind for expected in EXPECTED.values() for kind in expected["right"] + expected["also"]} <= set(KINDS)


def test_the_readme_tells_each_kind():
    assert re.findall(r"^\| `([a-z-]+)` \|", (FAULTS / "README.md").read_text(), flags=re.MULTILINE) == KINDS


def test_every_faulty_case_has_one_twin():
    assert sorted(path.name for path in (FAULTS / "mended").iterdir() if path.is_file()) == FAULTY


def changed_lines(before, after):
    """How many lines were changed, added or taken away; a changed one counts once."""
    changes = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False).get_opcodes()
    return sum(max(old_to - old, new_to - new) for kind, old, old_to, new, new_to in changes if kind != "equal")


@pytest.mark.parametrize("file", FAULTY)
def test_a_twin_differs_in_a_few_lines_and_says_why(file):
    case, twin = (CASES / file).read_text(), (FAULTS / "mended" / file).read_text()
    docstring = re.match(r'"""(.*?)"""', twin, flags=re.DOTALL)[1]
    assert "Mended: " in docstring
    assert "Truth:" not in docstring
    assert max(map(len, twin.splitlines())) <= 100  # as in the cases
    assert 1 <= changed_lines(*(without_docstring(text).lstrip("\n") for text in (case, twin))) <= MOST_CHANGED_LINES


SAMPLE = "04_fixed_batch_size_state.py"  # the case ends in an error


@pytest.mark.slow
def test_a_twin_runs_by_itself(tmp_path):
    """test_mended_faults.py runs each of them."""
    found = subprocess.run(
        [sys.executable, "-W", "error", str(FAULTS / "mended" / SAMPLE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("last loss ")


def findings(*kinds):
    return [{"kind": kind, "module": "rnn", "count": 3, "of": 4, "sentence": "..."} for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "right", "also", "verdict"),
    [
        (["shuffled"], ["shuffled", "other-sequence"], [], "right"),
        (["axes"], ["order"], ["axes"], "wrong"),  # true, and yet not the cause
        (["order", "axes"], ["order"], ["axes"], "right"),
        (["order", "state-lost"], ["order"], ["axes"], "right, false alarm: state-lost"),
        (["state-lost", "state-lost"], ["order"], [], "wrong, false alarm: state-lost"),
        (["a kind of its own"], ["order"], [], "wrong, false alarm: a kind of its own"),
        ([], ["order"], ["axes"], "wrong"),
        ([], [], [], "right"),
        (["unwatched"], [], [], "false alarm: unwatched"),
        (["rows-reread"], [], ["rows-reread", "state-lost"], "bonus"),
        ([], [], ["rows-reread"], "no bonus"),
        (["axes"], [], ["rows-reread"], "no bonus, false alarm: axes"),
    ],
)
def test_a_score(kinds, right, also, verdict):
    found = score(findings(*kinds), {"right": right, "also": also})
    assert found.verdict == verdict
    assert found.kinds == tuple(dict.fromkeys(kinds))


@pytest.mark.parametrize("module", [scorer, running])
def test_the_doctests(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def stand_in(folder, body):
    """A tool that looks at nothing: the body sees the `text` of the program, and `write`s what it finds."""
    head = (
        "import json, os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "found, script = map(Path, sys.argv[1:])\n"
        "text = script.read_text()\n"
        "def write(*kinds):\n"
        "    findings = [{'kind': kind} for kind in kinds]\n"
        "    found.write_text(json.dumps({'findings': findings, 'unknown': []}))\n"
    )
    path = folder / "a tool.py"
    path.write_text(head + body)
    return f"python '{path}' {{json}} {{script}}"


# Right of 01, wrong of 02 with a false alarm, a bonus of 22, a false alarm of h1; it fails on the twin of 02.
SAYS = """
is_mended = "sampler=order" in text
if "class NextValue" in text:
    write(*([] if is_mended else ["rows-skip", "rows-skip"]))
elif "class TextChunks" in text:
    if is_mended:
        sys.exit("no idea")
    write("axes")
elif "class TextRows" in text:
    write(*([] if is_mended else ["state-lost"]))
else:
    write("shuffled")
"""


def test_the_scorer_as_a_whole(tmp_path, capfd):
    tool, file = stand_in(tmp_path, SAYS), tmp_path / "scores.json"
    words = ["--tool", tool, "--only", "22", "01_one_step_windows", "02_shuffled_chunks.py", "h1", "--jobs", "2"]
    assert main([*words, "--json", str(file)]) == 0
    printed = [re.sub(r"  +", " | ", line) for line in capfd.readouterr().out.splitlines()]
    assert printed[1:] == [
        "01_one_step_windows | faulty | rows-skip | right",
        "01_one_step_windows | mended | - | right",
        "02_shuffled_chunks | faulty | axes | wrong, false alarm: axes",
        "02_shuffled_chunks | mended | - | failed: it writes no findings (exit code 1, no idea)",
        "22_resume_mid_epoch | faulty | state-lost | bonus",
        "22_resume_mid_epoch | mended | - | right",
        "h1_word_language_model | healthy | shuffled | false alarm: shuffled",
        "",
        "named rightly: 1 of 2",
        "false alarms: 1 of 4",
        "false alarms beside a fault: 1 of 3",
        "bonus: 1 of 1",
        "failed: 1 of 7",
    ]
    data = json.loads(file.read_text())
    assert data["totals"]["named rightly"] == {"count": 1, "of": 2}
    assert [program["verdict"] for program in data["programs"]] == [line.split(" | ")[3] for line in printed[1:8]]


def test_all_programs_are_asked_for():
    roles = [program.role for program in programs()]
    assert [roles.count(role) for role in ("faulty", "mended", "healthy")] == [19, 19, 4]


def test_a_tool_sees_no_name_and_no_docstring(tmp_path):
    """Both tell the fault. The lines keep their numbers."""
    body = "write(script.name, *os.listdir(), *text.splitlines())"
    [name, *rest] = [one["kind"] for one in Tool(stand_in(tmp_path, body)).findings(CASES / SAMPLE)]
    assert name == "program.py"
    assert sorted(rest[:2]) == ["program.py", "said"]
    case = (CASES / SAMPLE).read_text().splitlines()
    end = case.index('"""') + 1
    assert rest[2:] == [""] * end + case[end:]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("found.write_text('{')", "what it writes is not"),
        ("found.write_text('[]')", "what it writes is not"),
        ("found.write_text(json.dumps({'findings': [{'module': 'rnn'}]}))", "what it writes is not"),
        ("pass", r"it writes no findings \(exit code 0\)"),
        ("sys.exit('a reason')", r"it writes no findings \(exit code 1, a reason\)"),
    ],
)
def test_a_tool_that_does_not_say_what_it_finds_fails(tmp_path, body, reason):
    with pytest.raises(ToolError, match=reason):
        Tool(stand_in(tmp_path, body)).findings(CASES / SAMPLE)


def test_a_tool_that_writes_and_then_fails_is_heard(tmp_path):
    """Three of the programs end in an error, and a tool may end with it."""
    assert Tool(stand_in(tmp_path, "write('axes'); sys.exit(1)")).findings(CASES / SAMPLE) == [{"kind": "axes"}]


@pytest.mark.slow
def test_a_tool_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    note = tmp_path / "child"
    body = (
        f"child = subprocess.Popen(['sleep', '600']); Path({str(note)!r}).write_text(str(child.pid)); time.sleep(600)"
    )
    with pytest.raises(ToolError, match="it takes more than 3 s"):
        Tool(stand_in(tmp_path, body), timeout=3).findings(CASES / SAMPLE)
    child = int(note.read_text())
    deadline = time.monotonic() + 20
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only", "07"], "--only takes names of cases. Got '07'; the cases are 01, 02,"),
        (["--only", "01_one_step_window"], "(did you mean '01_one_step_windows'?)"),
        (["--tool", "look {script}"], "--tool must hold {json}, because"),
        (["--json", "nowhere/scores.json"], "--json must name a file in a directory that can be written to"),
        (["--json", __file__], "--json must name a new file, because none is overwritten"),
        (["--tool", "look {json}"], "--tool must hold {script}, because"),
        (["--jobs", "0"], "--jobs must be at least 1. Got 0."),
        (["--timeout", "0"], "--timeout must be more than 0 seconds. Got 0.0."),
    ],
)
def test_what_cannot_be_asked_for(words, sentence, capfd):
    assert main(words) == 2
    assert sentence in capfd.readouterr().err


def test_a_tool_that_cannot_be_started_fails():
    with pytest.raises(ToolError, match=r"it cannot be started: .*no-such-tool"):
        Tool("no-such-tool {json} {script}").findings(CASES / SAMPLE)
