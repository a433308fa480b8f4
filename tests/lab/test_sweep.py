"""Any grid: its runs as data, its results as rows, tables and figures; what is missing is named."""

import csv
import json

import pytest
from support.runs import short

from echo_torch import configure
from echo_torch.cli import main
from echo_torch.errors import RuleError, UserError
from echo_torch.lab import grid_of, read_sweep, run_sweep, sweep_table
from echo_torch.lab.estimate import _on_workers, estimate, in_lines
from echo_torch.lab.grid_figures import axis_label, draw_grid
from echo_torch.lab.grids import axes_of, read_grid, write_grid
from echo_torch.lab.locks import locked
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.sweep import cells_of, status_of
from echo_torch.lab.tables import with_interval

SMALL = {"updates": 6, "vocabulary_size": 5, "hidden_size": 4, "lanes": 2, "log_every": 2}


class Here:
    """An executor that does the work at once, in this process."""

    def submit(self, function, argument):
        return Done(function(argument))


class Done:
    def __init__(self, value):
        self._value = value

    def done(self):
        return True

    def result(self):
        return self._value


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of 2 x 2 x 2 runs, one of them missing."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    grid = grid_of("aligned", {"lag": "0,1", "learning_rate": "0.01,0.001"}, 2, {**SMALL, "missing": 0.2})
    return folder, grid, run_sweep(grid, folder, executor=Here())


def test_a_grid_is_all_combinations():
    grid = grid_of("aligned", axes_of(["lag=0,1", "--chunk=2,4,2", "model=lstm,gru"]), 3, {"updates": "40"})
    assert grid.axes == {"lag": [0, 1], "chunk": [2, 4], "model": ["lstm", "gru"]}
    runs = grid.runs()
    assert len(runs) == 2 * 2 * 2 * 3
    assert runs["lag1-chunk4-modelgru-seed3"] == configure(
        "aligned", lag=1, chunk=4, model="gru", seed=3, updates=40, accelerator="cpu"
    )


def test_any_option_can_be_an_axis():
    grid = grid_of("lag", {"clip_norm": "none,0.5", "tensorboard": "false", "init": ["torch", "keras"]})
    assert [c.clip_norm for c in grid.runs().values()] == [None, None, 0.5, 0.5]
    own = grid_of("lag", {"model_options": "width=2,depth=3;width=4"}, 1, {"model": "mine:Model"})
    assert own.axes["model_options"] == ["depth=3,width=2", "width=4"]


def test_a_grid_goes_through_a_file(tmp_path):
    grid = grid_of("lag", {"lag": "1,2", "clip_norm": "none,0.5", "carry": "keep"}, 3, {"sequences": 20})
    write_grid(grid, tmp_path / "grid.yaml")
    values = read_grid(tmp_path / "grid.yaml")
    assert grid_of(values.pop("mode"), values.pop("grid"), values.pop("seeds"), values) == grid


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("grid:\n  lag: [1, [2]]\n", "must give each name a list of values"),
        ("grid:\n  lag: [[]]\n", "must give each name a list of values"),
        ("grid:\n  lag: {a: 1}\n", "must give each name a list of values"),
        ("grid:\n  - lag\n", "must give each name one value"),
        ("mode: [lag]\n", "must give each name one value"),
        ("grid: &a\n  lag: *a\n", "every value must be written out"),
        ("grid:\n  lag: [1\n", "is not valid YAML at line"),
    ],
)
def test_a_file_that_is_no_grid(tmp_path, text, sentence):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize(
    ("axes", "options", "sentence"),
    [
        ({"lags": "1"}, {}, r"must name options\. There is no 'lags' \(did you mean 'lag'"),
        ({"seed": "1,2"}, {}, "must leave the seeds to `seeds`"),
        ({"lag": ""}, {}, "must give lag some values"),
        ({"lag": []}, {}, "must give lag some values"),
        ({"lag": "1,x"}, {}, "`lag` must be a whole number"),
        ({"lag": "1"}, {"lag": 2}, "`grid` must not name lag, which is given for every run"),
        ({}, {"seed": 2}, "`seed` is not one number where several seeds are trained"),
        ({"lag": list(range(500)), "batch_size": list(range(1, 500))}, {}, "at most 100,000 runs"),
        ({"chunk": "1"}, {}, "`chunk` has no meaning in mode lag"),
    ],
)
def test_a_grid_that_is_refused(axes, options, sentence):
    with pytest.raises(RuleError, match=sentence):
        grid_of("lag", axes, 1, options).runs()


@pytest.mark.parametrize("words", [["lag"], ["=1"], ["lag=1", "lag=2"]])
def test_words_that_are_no_axes(words):
    with pytest.raises(RuleError, match="`grid` must"):
        axes_of(words)


def test_each_run_is_a_row(swept):
    folder, _grid, rows = swept
    assert rows == read_sweep(folder)
    assert len(rows) == 8
    row = rows[3]
    result = RunDirectory(folder / row["run"]).read_result()
    assert (row["run"], row["lag"], row["learning_rate"], row["seed"]) == (
        "lag0-learningrate0.001-seed2", 0, 0.001, 2,
    )  # fmt: skip
    for name in (
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "ceiling",
        "loss",
        "updates",
        "seconds",
        "weights_sha256",
    ):
        assert row[name] == result[name]
    assert (row["status"], row["reason"], row["symbols"], row["symbols_to_99"]) == ("finished", None, 6 * 2 * 5, None)
    assert row["torch"] == result["versions"]["torch"]
    assert row["reachable_share"] != rows[2]["reachable_share"]  # what is missing hangs on the seed


def test_the_rows_stand_in_files(swept):
    folder, grid, rows = swept
    with open(folder / "results.csv") as file:
        written = list(csv.DictReader(file))
    assert written == [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    with open(folder / "curves.csv") as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 8 * 3
    assert [line["update"] for line in curves[:3]] == ["2", "4", "6"]
    metrics = RunDirectory(folder / rows[7]["run"]).read_metrics()
    assert float(curves[-1]["loss"]) == metrics["loss"][-1]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "table.md").read_text().rstrip("\n") == sweep_table(grid, cells_of(grid, rows, folder))


def test_what_is_missing_or_damaged_is_named(swept, tmp_path):
    folder, _grid, rows = swept
    result = RunDirectory(folder / rows[5]["run"]).result
    whole = result.read_bytes()
    for damage, status, reason in ((b"{}", "damaged", "is damaged"), (None, "missing", "6 updates are made")):
        try:
            result.write_bytes(damage) if damage else result.unlink()
            with pytest.raises(UserError, match=rf"1 of 8 runs are not finished \(1 {status}\): {rows[5]['run']}\."):
                read_sweep(folder)
            found = read_sweep(folder, allow_missing=True)
        finally:
            result.write_bytes(whole)
        assert found[5]["status"] == status
        assert reason in found[5]["reason"]
        assert found[5]["accuracy"] is found[5]["symbols"] is None
        assert [row for row in found if row is not found[5]] == [row for row in rows if row is not rows[5]]
    with pytest.raises(RuleError, match="must be the folder of a sweep"):
        read_sweep(tmp_path)


def test_a_sweep_grows_but_loses_no_run(swept):
    folder, grid, rows = swept
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    with pytest.raises(UserError, match=r"holds a sweep with other runs, such as 'lag0-learningrate0\.01-seed2'"):
        run_sweep(grid_of("aligned", grid.axes, 1, grid.options), folder, executor=Here())
    assert run_sweep(grid, folder, executor=Here()) == rows
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")} == stamps


def test_the_state_of_a_sweep(swept):
    folder, _grid, rows = swept
    runs = [RunDirectory(folder / row["run"]) for row in rows]
    kept = {run.result: run.result.read_bytes() for run in runs[:3]}
    for path in kept:
        path.unlink()
    runs[0].failure.write_text(json.dumps({"reason": "The loss is not finite."}))
    try:
        with locked(runs[1].path) as is_mine:
            assert is_mine
            found = status_of(folder)
            assert main(["sweep", "--status", str(folder)]) == 0
        failed = read_sweep(folder, allow_missing=True)[0]
    finally:
        runs[0].failure.unlink()
        for path, text in kept.items():
            path.write_bytes(text)
    assert {status: [rows.index(row) for row in rows if row["run"] in names] for status, names in found.items()} == {
        "finished": [3, 4, 5, 6, 7], "running": [1], "failed": [0], "left": [2],
    }  # fmt: skip
    assert (failed["status"], failed["reason"]) == ("failed", "The loss is not finite.")


def test_few_seeds_are_shown_each(swept):
    folder, grid, rows = swept
    cell = cells_of(grid, rows, folder)[1]
    assert with_interval(cell) == f"{rows[2]['accuracy']:.2%}, {rows[3]['accuracy']:.2%}"
    assert (
        with_interval({"accuracy": 0.5, "accuracy_half_interval": 0.25, "accuracies": [0.5] * 4}) == "50.00% ± 25.00%"
    )
    assert with_interval({"accuracy": None, "accuracies": []}) == "-"


@pytest.mark.parametrize("num_axes", [1, 2, 3])
def test_figures_of_one_to_three_axes(tmp_path, num_axes):
    """A cell of which nothing is known has a place too."""
    axes = dict(list({"lag": [0, 1], "model": ["lstm", "gru"], "clip_norm": [None, 0.5]}.items())[:num_axes])
    cells = [
        {**place, "accuracy": 0.5, "accuracies": [0.4, 0.6], "accuracy_half_interval": 0.1, "ceiling": 1, "chance": 0.1}
        for place in grid_of("lag", axes).places()
    ]
    cells[0] |= {"accuracy": None, "accuracies": [], "accuracy_half_interval": None, "ceiling": None, "chance": None}
    draw_grid(axes, cells, tmp_path / "figure.png", title="x")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [axis_label(name) for name in ("lag", "chunk", "hidden_size")] == [
        "lag (steps)", "chunk length (steps)", "hidden size",
    ]  # fmt: skip


def test_the_estimate_counts_what_there_will_be(swept):
    folder, grid, rows = swept
    runs = {**grid.runs(), "gru": short("aligned", model="gru", updates=5)}
    found = estimate(runs, 2)
    assert (found.num_runs, found.num_updates, found.stacks, found.num_alone) == (9, 8 * 6 + 5, (4, 4), 1)
    files = [path for row in rows for path in (folder / row["run"]).rglob("*") if path.is_file()]
    assert found.num_files == 9 * 5
    assert len(files) == 8 * 5
    size = sum(path.stat().st_size for path in files) / 8
    assert estimate(grid.runs(), 2).num_bytes / 8 == pytest.approx(size, rel=0.2)
    assert found.seconds > 0
    assert [line.split(":")[0] for line in in_lines(found)] == ["runs", "updates", "stacks", "time", "memory", "files"]
    assert _on_workers([4.0, 3.0, 2.0, 1.0], 2) == 5.0


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text("mode: aligned\nseeds: 2\nupdates: 4\nlanes: 2\ngrid:\n  lag: [0, 1]\n")
    words = ["sweep", "--config", "grid.yaml", "--hidden-size", "4", "--vocabulary-size", "5", "--no-progress"]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("runs: 4\nupdates: 16\nstacks: 1 of 4 runs\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "grid.yaml"]
    for part, said in (
        ("1/2", "This part is done; runs are left to other parts"),
        ("2/2", "| lag | seeds | ceiling |"),
    ):
        assert main([*words, "--shard", part, "--jobs", "1"]) == 0
        assert capsys.readouterr().out.startswith(said)
    assert [row["seed"] for row in read_sweep("runs/sweep")] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        "--grid lag",
        "--grid lag=",
        "--grid lag=x",
        "--grid lagg=1",
        "--grid lag=1 --lag 2",
        "--grid seed=1,2",
        "--seed 3",
        "--seeds 0",
        "--mode lagg",
        "--shard 3/2 --grid lag=1",
        "--config none.yaml",
        "--status .",
        "--grid lag=9",
        "--jobs 0",
        "--grid hidden_size=4 model=mlp layers=2",
    ],
)
def test_bad_input(capfd, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments.split()]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
