"""Figures in the form that is asked for, in place of those that an earlier call drew in the other form."""

from pathlib import Path

import pytest

from echo_torch import RunDirectory
from echo_torch.cli import main
from echo_torch.errors import RuleError
from echo_torch.lab.map_and_lags import run_map
from echo_torch.lab.plan import Plan

QUICK = ["--vocabulary-size", "10", "--no-progress"]
TINY = ["--updates", "8", "--hidden-size", "4"]
RUN = ["train", *QUICK, *TINY, "--accelerator", "cpu", "--quiet", "--run-dir", "run"]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Plan.evaluation, "__defaults__", (20,))


def pictures(folder):
    return sorted(path.name for form in ("png", "svg") for path in Path(folder).glob(f"*.{form}"))


def is_svg(path):
    return b"<svg" in Path(path).read_bytes()[:1000]


def test_train_draws_in_one_form_and_leaves_none_in_the_other():
    assert main([*RUN, "--figures", "svg"]) == 0
    assert pictures("run") == ["curve.svg"]
    assert is_svg("run/curve.svg")
    assert main([*RUN, "--resume", "auto"]) == 0
    assert pictures("run") == ["curve.png"]


def test_a_killed_training_leaves_no_half_picture(capsys):
    """What a kill leaves of either form is cleared away where the run goes on."""
    assert main(RUN) == 0
    run = RunDirectory(Path("run"))
    left = [run.path / f".{name}.writing-0123" for name in ("curve.png", "curve.svg", "report.html")]
    for path in left:
        path.touch()
    assert main([*RUN, "--resume", "auto"]) == 0
    assert not any(path.exists() for path in left)


SWEEPS = {
    "sweep": (["--mode", "aligned", *QUICK, *TINY, "--grid", "lag=0,1", "--lanes", "2"], ["figure"]),
    "map": (
        [*QUICK, *TINY, "--lags", "0", "--chunks", "2", "--learning-rates", "0.01"],
        ["map", "map_seeds"],
    ),
    "lags": (["--lags", "1", "--hidden-sizes", "4", "--sequences", "2", "--seeds", "1", "--no-progress"], ["lags"]),
    "compare": (["--arms", "lag", "--seeds", "1", "--no-progress"], ["curves", "reach_by_horizon"]),
}


@pytest.mark.parametrize(
    "command", ["sweep", *(pytest.param(name, marks=pytest.mark.slow) for name in ("map", "lags", "compare"))]
)
def test_a_sweep_draws_in_one_form_and_leaves_none_in_the_other(command):
    words, names = SWEEPS[command]
    for form in ("svg", "png"):
        assert main([command, *words, "--run-dir", "it", "--jobs", "1", "--figures", form]) == 0
        assert pictures("it") == [f"{name}.{form}" for name in names]
        assert all(is_svg(f"it/{name}.{form}") == (form == "svg") for name in names)


@pytest.mark.parametrize("command", ["train", *SWEEPS])
def test_a_form_that_there_is_not_is_refused(command, capsys):
    assert main([command, "--figures", "gif", "--run-dir", "it"]) == 2
    assert capsys.readouterr().err == "--figures must be one of png, svg. Got 'gif'.\n"
    assert not Path("it").exists()


def test_in_python_too():
    with pytest.raises(RuleError, match="`figures` must be one of png, svg"):
        run_map(folder="it", figures="pdf")
    assert not Path("it").exists()


def test_a_name_of_a_file_says_its_form():
    for name in ("x.svg", "x.png"):
        assert main(["reach", "--mode", "lag", "--plot", name]) == 0
    assert [is_svg(name) for name in ("x.svg", "x.png")] == [True, False]
