"""A user's own model on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import own_sources

from echo_torch.cli import main

ROOT = Path(__file__).parents[2]
QUICK = ["--updates", "24", "--vocabulary-size", "10", "--no-progress", "--accelerator", "cpu"]
OWN = ["--model", "support.own_models:GRU"]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def refused(capfd, *arguments):
    """The one sentence of a command that changes nothing."""
    before = sorted(Path().rglob("*"))
    assert main([*arguments]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert "`" not in error
    assert sorted(Path().rglob("*")) == before
    return error


def test_train_says_what_the_model_is(capsys):
    assert main(["train", *QUICK, *OWN, "--model-options", "width=5", "--run-dir", "run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2] == "network: support.own_models:GRU width=5, 315 parameters"
    assert not any("hidden size" in line for line in shown)
    assert shown[-1].endswith("files: run")
    assert json.loads(Path("run/result.json").read_text())["parameters"] == 315
    assert main(["train", "--config", "run/config.yaml", *OWN, "--run-dir", "again", "--quiet"]) == 0
    results = [json.loads(Path(run, "result.json").read_text()) for run in ("run", "again")]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert Path("run/config.yaml").read_bytes() == Path("again/config.yaml").read_bytes()
    assert main(["reach", *OWN]) == 0


BAD = [
    ("--model lstmm", ["--model must be one of lstm", "did you mean 'lstm'", "is written package.module:Class."]),
    ("--model lstm --model-options width=3", ["--model-options has an effect only where --model is a class"]),
    ("--model support.own_models:GRU --hidden-size 5", ["--hidden-size has an effect", "say it with --model-options"]),
    ("--model support.own_models:GRU --init keras", ["--init has an effect only where --model is one of the networks"]),
    (
        "--model support.own_models:GRU --model-options width",
        ["--model-options must be names and values", "Got 'width'"],
    ),
    ("--model support.own_models:GRU --model-options widht=3", ["takes width", "did you mean 'width'"]),
    ("--model support.own_models:GRUU", ["--model must name a class", "there is no GRUU (did you mean 'GRU'?)"]),
    ("--model support.own_models:NoModule", ["--model must name an nn.Module", "a class that is no nn.Module"]),
    ("--model support.own_models:NoState", ["a class without initial_state"]),
    ("--model support.own_models:Raises", ["Support.own_models:Raises cannot be built: ValueError"]),
    ("--model support.own_models:OneLogit", ["must return logits"]),
    (
        "--model nowhere:GRU",
        ["--model must name a module that can be imported", "begin in the directory that holds it"],
    ),
    ("--model own_fails:Net", ["'own_fails' cannot be imported: ZeroDivisionError"]),
    ("--config own.yaml", ["--model must repeat os:Net, the class that 'own.yaml' names", "Give --model os:Net if"]),
    ("--allow-changed-model", ["--allow-changed-model has an effect only where --model is a class of your own"]),
    ("--model support.own_models:GRU --allow-changed-model", ["has an effect only together with --resume"]),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_input_is_one_sentence(capfd, monkeypatch, arguments, words):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own_sources.write("own_fails", "1 / 0")
    Path("own.yaml").write_text("mode: lag\nmodel: os:Net\nmodel_source: abc\n")
    error = refused(capfd, "train", *arguments.split())
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("compare --model gruu", ["--model must be one of", "did you mean 'gru'"]),
        ("compare --model gru --arms lag mlp-4", ["--arms must leave the network to --model", "Got mlp-4"]),
        (
            "compare --model gru --model-options width=3",
            ["--model-options has an effect only where --model is a class"],
        ),
        ("compare --model support.own_models:NoState", ["a class without initial_state"]),
        ("map --model support.own_models:GRU --hidden-size 50", ["--hidden-size has an effect only where --model is"]),
        ("map --model support.own_models:GRU --model-options width", ["--model-options must be names and values"]),
        ("map --model support.own_models:GRU --model-options colour=red", ["takes width. Got colour"]),
        ("map --model-options width=3", ["--model-options has an effect only where --model is a class of your own"]),
        (
            "lags --model support.own_models:GRU --hidden-sizes 5",
            ["--hidden-sizes has an effect only where --model is"],
        ),
        ("lags --model support.own_models:GRU --model-options width=2 width=x", ["cannot be built: TypeError"]),
        ("lags --model-options width=2", ["--model-options has an effect only where --model is a class of your own"]),
        ("lags --model nowhere:GRU", ["--model must name a module that can be imported"]),
    ],
)
def test_bad_input_of_sweeps_is_one_sentence(capfd, arguments, words):
    error = refused(capfd, *arguments.split())
    for word in words:
        assert word in error


def test_nothing_that_a_file_or_directory_names_is_run_by_itself(capfd):
    """Its module is not even imported, until the command line names it."""
    own_sources.write("own_seen", own_sources.WITNESS)
    assert main(["train", *QUICK, "--model", "own_seen:Net", "--run-dir", "run", "--quiet"]) == 0
    witness = Path("it-was-run")
    own_sources.forget("own_seen")
    witness.unlink()
    for command in (
        "evaluate --run run",
        "predict --run run 1 2 3 4 5 6 7",
        "stream --run run",
        "evaluate --run run --model support.own_models:GRU",
        "train --config run/config.yaml",
        "train --config run/config.yaml --print-config",
        "train --config run/config.yaml --run-dir run --resume auto",
        "reach --config run/config.yaml",
    ):
        assert "--model must repeat own_seen:Net, the class that 'run/config.yaml' names" in refused(
            capfd, *command.split()
        )
        assert not witness.exists()
        assert "own_seen" not in sys.modules
    refused(capfd, "train", *QUICK, "--run-dir", "run", "--resume", "auto")  # says that the model is another one
    assert main(["reach", "--config", "run/config.yaml", "--model", "own_seen:Net"]) == 0
    assert not witness.exists(), "the data path needs no model"
    assert main(["evaluate", "--run", "run", "--model", "own_seen:Net"]) == 0
    assert witness.exists()


@pytest.mark.slow
def test_a_changed_source_is_refused_unless_it_is_allowed(capfd):
    own_sources.write("own_edited")
    train = ["train", *QUICK, "--model", "own_edited:Net", "--run-dir", "run"]
    assert main([*train, "--quiet"]) == 0
    own_sources.write("own_edited", own_sources.GOOD + "# changed\n")
    answers = [
        [*words.split(), "--run", "run", "--model", "own_edited:Net"] for words in ("evaluate", "predict 1 2 3 4 5 6 7")
    ]
    longer = [*train, "--updates", "30", "--resume", "auto"]
    for command in (*answers, longer):
        error = refused(capfd, *command)
        assert "was written with another source of own_edited:Net" in error
        assert "go on with the new one by --allow-changed-model." in error
    for command in (*answers, longer):
        assert main([*command, "--allow-changed-model"]) == 0
        warning = "was written with another source of own_edited:Net: the new one is used, as allowed.\n"
        error = capfd.readouterr().err
        assert error.startswith("warning: The checkpoint ")
        assert error.endswith(warning)
        assert error.count("\n") == 1
    for command in answers:
        assert main(command) == 0


@pytest.mark.slow
@pytest.mark.parametrize("program", [["-m", "echo_torch", "train"], [str(ROOT / "train.py")]])
def test_a_module_in_the_current_directory_is_found(tmp_path, program):
    own_sources.write("own_there")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, *program, *QUICK, "--model", "own_there:Net", "--quiet", "--run-dir", "run"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"] == "own_there:Net"


@pytest.mark.slow
def test_sweeps_train_it_in_their_processes(tmp_path, capsys):
    """A module of the current directory among them."""
    own_sources.write("own_swept")
    own = ["--model", "own_swept:Net", "--no-progress"]
    assert main(["compare", "--seeds", "1", "--arms", "aligned-5", *own, "--run-dir", "c"]) == 0
    grid = ["--lags", "0", "1", "--chunks", "2", "--updates", "20", "--learning-rates", "0.01"]
    assert main(["map", *grid, *own, "--model-options", "width=4", "--run-dir", "m"]) == 0
    grid = ["--lags", "1", "--sequences", "20", "--seeds", "1", "--carry", "keep"]
    assert main(["lags", *grid, *own, "--model-options", "width=4", "width=6", "--run-dir", "l"]) == 0
    shown = capsys.readouterr().out
    assert "| lag | model options | state |" in shown
    assert "| 1 | width=6 | carried |" in shown
    assert main(["lags", *grid, "--model", "gru", "--hidden-sizes", "5", "--no-progress", "--run-dir", "g"]) == 0
    for folder, model in (("c", "own_swept:Net"), ("m", "own_swept:Net"), ("l", "own_swept:Net"), ("g", "gru")):
        found = [yaml.safe_load(path.read_text()) for path in Path(folder).glob("*/config.yaml")]
        assert found
        assert {values["model"] for values in found} == {model}
    for picture in ("c/curves.png", "m/map.png", "l/lags.png", "g/lags.png"):
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    cells = json.loads(Path("l/lags.json").read_text())
    assert [cell["model_options"] for cell in cells] == ["width=4", "width=6"]
