import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import echo_torch
from echo_torch import RunDirectory, UserError
from echo_torch.cli import flags, main

TRAIN = Path(__file__).parents[2] / "train.py"
QUICK = ["--sequences", "10", "--vocabulary-size", "10", "--no-progress", "--accelerator", "cpu"]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_train_shows_what_it_does_and_evaluate_repeats_it(capsys):
    assert main(["train", "--mode", "lag", *QUICK]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:4] == [
        "chance: 10.00%; ceiling: 100.0%, the best accuracy that any model could have on the training's batches",
        "network: lstm, hidden size 50, 12,910 parameters",
        "training: 40 updates, 10 sequences",
    ]
    assert shown[0].startswith("asked: say the symbol 1 step ago")
    begin = 4
    assert shown[begin].startswith("accuracy ")
    assert shown[-4].startswith("Expected:  [")
    assert shown[-3].startswith("Predicted: [")
    assert "chance, although the data path allows 100.0%" in shown[-2]
    assert "runs/lag-seed1" in shown[-1]
    assert Path("runs/lag-seed1/curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", "--run", "runs/lag-seed1"]) == 0
    repeated = capsys.readouterr().out.splitlines()
    by_chunk = next(line for line in repeated if line.startswith("accuracy by chunk of the sequence: "))
    assert by_chunk.count("%") == 4
    assert [line for line in repeated if line != by_chunk] == [line for line in shown[begin:-2] if line != by_chunk]


def test_what_the_data_path_allows_is_explained_where_it_is_asked_for(capsys):
    assert main(["reach", "--mode", "stateful"]) == 0
    explained = capsys.readouterr().out.splitlines()
    assert main(["train", "--mode", "stateful", "--explain", *QUICK[:2], *QUICK[-3:]]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == explained[0]
    assert shown[1].startswith("chance: 1.00%; the ceiling is chance too: no row has read since its reset what it")
    assert shown[4 : 3 + len(explained)] == explained[1:]
    assert shown[3 + len(explained)].startswith("accuracy ")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            "--mode lag --vocabulary-size 1000000 --updates 1",
            ["chance: 0.0001%; ceiling: 100.0%", "training: 1 update, 1 sequence\n"],
        ),
        (
            "--mode aligned --model gru --layers 2 --hidden-size 7",
            ["network: gru, hidden size 7, 2 layers, ", "320,000 sym"],
        ),
        ("--data own.txt", ["chance: 2.63%; the ceiling is not known, because these numbers may be guessed"]),
    ],
)
def test_the_opening_is_made_from_the_numbers(words, lines, monkeypatch, capsys):
    Path("own.txt").write_text(" ".join(map(str, range(1, 38))))

    def trained(plan, run, *, begin, **options):
        begin()
        raise UserError("Trained.")

    monkeypatch.setattr("echo_torch.lab.runner.train", trained)
    assert main(["train", *words.split()]) == 2
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 4
    assert all(line in shown for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data words.txt --vocabulary-size 9", "'words.txt' line 1: every entry must be a whole number"),
        ("--data words.txt", "'words.txt' line 1: every entry must be a whole number"),
        ("--data short.txt", "'short.txt' is too short: for training its longest series"),
        ("--mode aligned --data short.txt --lanes 1", "'short.txt' is too short: for evaluation its longest series"),
        (
            "--mode aligned --data long.txt --lanes 400",
            "'long.txt' is too short for 400 lanes: for training each of them",
        ),
        ("--devices 9", "--devices must be at most the number of lanes, 5"),
        ("--model nowhere.at_all:Net", "nowhere"),
        ("--resume none.ckpt --run-dir new", "none.ckpt"),
        ("--resume auto --run-dir other", "other"),
        ("--resume auto", "--resume needs --run-dir"),
        pytest.param(
            "--accelerator cuda",
            "--accelerator cuda needs a CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_printed(capsys, words, said):
    Path("words.txt").write_text("a b c\n")
    Path("short.txt").write_text("1 2 3\n")
    Path("long.txt").write_text("0 1 2 3 4 " * 20)
    RunDirectory(Path("other")).create()
    Path("other/config.yaml").write_text("mode: lag\nlag: 3\n")
    before = sorted(Path().rglob("*"))
    assert main(["train", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_quiet_says_nothing(capsys):
    assert main(["train", "--quiet", *QUICK]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_second_run_gets_a_new_name():
    for _ in range(2):
        main(["train", "--quiet", *QUICK])
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lag-seed1", "lag-seed1-2"]


def test_a_saved_configuration_can_be_given_back(capsys):
    main(["train", "--mode", "stateful", "--lag", "6", "--run-dir", "one", "--quiet", *QUICK])
    main(["train", "--config", "one/config.yaml", "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(Path("one/config.yaml").read_text())
    main(["train", "--config", "one/config.yaml", "--lag", "0", "--updates", "5", "--print-config"])
    changed = yaml.safe_load(capsys.readouterr().out)
    assert (changed["mode"], changed["lag"], changed["updates"], changed["sequences"]) == ("stateful", 0, 5, None)
    assert list(Path().iterdir()) == [Path("one")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--mode lagg", ["--mode", "'lagg'", "did you mean 'lag'"]),
        ("--modee lag", ["'--modee'", "did you mean '--mode'"]),
        ("--lag", ["--lag needs a value. Got none; write --lag N."]),
        ("--lag 5", ["--lag must be smaller than --window", "Got lag 5"]),
        ("--lag -1", ["--lag must be a whole number between 0", "Got -1"]),
        ("--mode echo --window 3", ["--window is always 1 in mode echo", "Got 3"]),
        ("--mode lag --length 5", ["--length must be at least window + 1 = 6", "Got 5"]),
        ("--hidden-size 0", ["--hidden-size", "Got 0"]),
        ("--hidden-size 1_0", ["--hidden-size must be a whole number", "Got '1_0'"]),
        ("--hidden-size \uff11", ["--hidden-size must be a whole number"]),
        ("--learning-rate 1_0", ["--learning-rate must be a number", "Got '1_0'"]),
        ("--config neither.yaml", ["--sequences or --updates must say how long", "Got neither"]),
        ("--config later.yaml", ["later.yaml", "format 2, here 1", "leave the format out"]),
        ("--mode whole --batch-size 1000000", ["--batch-size, --length, --vocabulary-size"]),
        ("--hidden-size 2.5", ["--hidden-size", "Got '2.5'"]),
        ("--learning-rate inf", ["--learning-rate", "Got inf"]),
        ("--learning-rate nan", ["--learning-rate", "Got nan"]),
        ("--batch-size 99999999999999999999", ["--batch-size", "Got 99999999999999999999"]),
        ("--vocabulary-size 9000000 --encoding one-hot", ["--vocabulary-size", "parameters", "--encoding digits"]),
        ("--config=", ["Cannot read"]),
        ("--config none.yaml", ["none.yaml", "No such file"]),
        ("--config list.yaml", ["list.yaml", "Got list"]),
        ("--config broken.yaml", ["broken.yaml", "not valid YAML at line 3"]),
        ("--config unknown.yaml", ["hiden_size", "did you mean 'hidden_size'"]),
        ("--config .", ["directory"]),
        ("--config zero.yaml", ["Cannot read 'a\\x00b': no file can have this name."]),
        ("--config surrogate.yaml", ["Cannot read '\\ud800': no file can have this name."]),
        ("--explain=1", ["--explain takes no value. Got '1'."]),
        ("--bptt 3", ["'--bptt'", "did you mean '--window'"]),
        ("--no-figures", ["There is no flag or argument '--no-figures' here."]),
        ("--run-dir list.yaml", ["--run-dir", "list.yaml"]),
        ("--run-dir list.yaml/x", ["--run-dir", "list.yaml/x"]),
        ("--run-dir /proc/none/x", ["--run-dir", "/proc/none/x"]),
        ("--run-dir full", ["--run-dir must be new or empty", "'full'"]),
        ("--sequences 3 --updates 3", ["--sequences and --updates"]),
        ("--carry reset --cut sequence", ["--cut", "--carry"]),
        ("lag", ["'lag'", "did you mean '--mode lag'"]),
        ("--epochs 3", ["'--epochs'", "did you mean '--sequences'"]),
        ("--mode aligned --epochs 3", ["'--epochs'", "did you mean '--updates'"]),
        (
            "--mode aligned --batch-size 3",
            ["--batch-size has no meaning in mode aligned", "leave it out or say --lanes."],
        ),
        ("--accelerator gpu", ["Got 'gpu' (did you mean 'cuda'?)"]),
        ("--mode beginner", ["Got 'beginner' (did you mean 'stateful'?)"]),
        ("--optimizer adam", ["There is no flag or argument '--optimizer' here."]),
        ("--config lr.yaml", ["There is no option 'lr' (did you mean 'learning_rate'?)"]),
    ],
)
def test_bad_input_is_one_sentence(capfd, arguments, words):
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("lag: 1\nlag: 'x\n")
    Path("unknown.yaml").write_text("hiden_size: 5\n")
    Path("neither.yaml").write_text("updates: null\nsequences: null\n")
    Path("zero.yaml").write_text('data: "a\\0b"\n')
    Path("surrogate.yaml").write_text('data: "\\ud800"\n')
    Path("lr.yaml").write_text("lr: 0.1\n")
    Path("later.yaml").write_text("format: 2\nmode: lag\n")
    Path("full").mkdir()
    Path("full/file").touch()
    before = sorted(Path().rglob("*"))
    assert main(["train", *arguments.split()]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert "`" not in error
    for word in words:
        assert word in error
    assert sorted(Path().rglob("*")) == before


def test_reach_says_it_before_any_training(capsys):
    assert main(["reach", "--mode", "stateful"]) == 0
    shown = capsys.readouterr().out
    assert "gap: 5" in shown
    assert "reachable lags: 0, 6, 12, 18" in shown
    assert "no training can get beyond 1.0%" in shown
    assert main(["reach", "--mode", "lag", "--json", "--plot", "lag.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "gap", "gaps", "reachable_lags", "lag", "reachable_share", "in_horizon_share", "ceiling", "targets", "chunks",
        "borders", "seam", "rows", "row_changes", "first_row_change", "before_start", "empty_chunks", "is_whole",
        "faults",
    }  # fmt: skip
    assert (found["gap"], found["gaps"], found["ceiling"]) == (0, {"0": 1900}, 1.0)
    assert Path("lag.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command", ["train --run-dir", "report", "evaluate --run", "predict 1 --run", "sweep --status", "map --run-dir"]
)
def test_an_empty_name_is_no_directory(capfd, command):
    assert main([*command.split(), ""]) == 2
    said = capfd.readouterr()
    assert "must be the name of a directory. Got ''; for the current one write ./" in said.err
    assert (said.out, list(Path().iterdir())) == ("", [])


@pytest.mark.parametrize(("lines", "is_watched"), [(24, True), (1, True), (0, False)])
def test_a_terminal_without_lines_shows_no_bar(monkeypatch, lines, is_watched):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, fileno=lambda: 2))
    monkeypatch.setattr("os.get_terminal_size", lambda number: os.terminal_size((80, lines)))
    assert flags.is_watched() is is_watched


@pytest.mark.parametrize(
    "arguments",
    [
        "--plot full",
        "--plot none/x.png",
        "--plot x.pdf",
        "--plot x",
        "--mode aligned --chunk 0",
        "--mode aligned --lanes 0",
        "--run-dir x",
    ],
)
def test_bad_input_of_reach(capfd, arguments):
    Path("full").mkdir()
    assert main(["reach", *arguments.split()]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert os.listdir() == ["full"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("report", "DIR is missing: the directory of a run, finished or not, of a sweep, "),
        ("evaluate", "--run is missing: the directory of a finished run."),
        ("sweep --grid", "--grid needs a value. Got none; write --grid NAME=VALUE,VALUE."),
        ("trian", "There is no command 'trian' (did you mean 'train'?); the commands are train, show, "),
        ("fit", "There is no command 'fit' (did you mean 'train'?)"),
        ("lag", "There is no command 'lag' (did you mean 'train --mode lag'?)"),
        ("echo", "There is no command 'echo' (did you mean 'train --mode echo'?)"),
        ("page", "There is no command 'page' (did you mean 'report'?)"),
        ("nonsense", "There is no command 'nonsense'; the commands are train, "),
        ("--mode lag", "A command must stand before its flags. Got '--mode' first; write train --mode ..."),
        ("stream --run x --n-lanes 3", "There is no flag or argument '--n-lanes' here (did you mean '--lanes'?)."),
        ("evaluate --run x --load y", "There is no flag or argument '--load' here (did you mean '--run'?)."),
        ("sweep --grid lr=0.1", "There is no 'lr' (did you mean 'learning_rate'?)"),
        ("sweep --mode aligned --grid timesteps=3", "There is no 'timesteps' (did you mean 'chunk'?)"),
        ("map --lr 3", "(did you mean '--learning-rates'?)"),
    ],
)
def test_what_people_bring_is_understood(capsys, arguments, said):
    assert main(arguments.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", ["--verbose", "trian", "evaluate", "evaluate --run none", "evaluate --run .", "predict --run= 1"]
)
def test_bad_commands(capfd, arguments):
    assert main(arguments.split()) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "COMMAND" in shown
    assert "compare" in shown


@pytest.mark.parametrize("run", [".", "none"])
def test_a_directory_without_a_run_is_the_fault_of_its_flag(capsys, run):
    assert main(["predict", f"--run={run}", "1"]) == 2
    assert capsys.readouterr().err.startswith("--run must be the directory of a finished run. Got ")


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"echo-torch {echo_torch.__version__}\n"


def test_a_flag_that_a_command_has_not_is_never_named(capsys):
    assert main(["lags", "--lags", "5"]) == 2
    assert capsys.readouterr().err.startswith("--lags must be smaller than window in mode lag")
    assert main(["map", "--learning-rates", "0"]) == 2
    assert capsys.readouterr().err.startswith("--learning-rates must be a number between")


def test_help_and_errors_import_nothing_heavy():
    program = (
        "import sys; from echo_torch.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'pytorch_lightning', 'matplotlib') if name in sys.modules])"
    )
    for arguments in (["train", "--help"], ["train", "--mode", "lag", "--help"], ["train", "--mode", "x"], ["--help"]):
        found = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, cwd=TRAIN.parent
        )
        assert found.stdout.splitlines()[-1] == "[]"


def test_train_py_is_the_train_command():
    found = subprocess.run([sys.executable, TRAIN, "--mode", "echo", "--print-config"], capture_output=True, text=True)
    assert found.returncode == 0
    assert yaml.safe_load(found.stdout)["hidden_size"] == 15
    found = subprocess.run([sys.executable, TRAIN, "--mode", "ecko"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")


def test_a_full_standard_output():
    command = [sys.executable, TRAIN, "--mode", "echo", "--print-config"]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert found.stderr == "Standard output cannot be used: No space left on device.\n"
