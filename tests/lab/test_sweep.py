"""Any grid: its runs as data, its results as rows, tables and figures; what is missing is named."""

import csv
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from support import own_sources
from support.runs import Here, short

from echo_torch import configure
from echo_torch.cli import main
from echo_torch.errors import RuleError, UserError
from echo_torch.lab import grid_figures, grid_of, read_sweep, run_sweep, sweep_table
from echo_torch.lab.estimate import _on_workers, estimate, in_lines
from echo_torch.lab.grid_figures import _as_label, axis_label, draw_grid
from echo_torch.lab.grids import axes_of, read_grid, write_grid
from echo_torch.lab.locks import locked
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.sweep import cells_of, status_of, title_of
from echo_torch.lab.tables import with_interval

SMALL = {"updates": 6, "vocabulary_size": 5, "hidden_size": 4, "lanes": 2, "log_every": 2}


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
        ({"mode": "lag,echo"}, {}, "`grid` is of one mode"),
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


def test_a_table_that_has_lost_a_column_is_damaged(swept):
    folder, grid, rows = swept
    metrics = RunDirectory(folder / rows[5]["run"]).metrics
    whole = metrics.read_bytes()
    for column in ("update", "sequences", "symbols", "targets", "loss", "accuracy"):
        try:
            metrics.write_bytes(whole.replace(column.encode(), b"other"))
            assert read_sweep(folder, allow_missing=True)[5]["status"] == "damaged"
            with pytest.raises(UserError, match=f"{rows[5]['run']}' is damaged"):
                run_sweep(grid, folder, executor=Here())
        finally:
            metrics.write_bytes(whole)


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


LOST = """
import torch
from support.own_models import GRU


class Net(GRU):
    def __init__(self, vocabulary_size, bad=False):
        super().__init__(vocabulary_size)
        self.bad, self.num_calls = bad, 0

    def forward(self, symbols, state):
        logits, state = super().forward(symbols, state)
        self.num_calls += self.training and torch.is_grad_enabled()
        return (logits * float("nan") if self.bad and self.num_calls > 4 else logits), state
"""


def test_a_run_alone_whose_loss_is_not_finite_ends_alone(tmp_path, monkeypatch):
    """One that shares no stack is named like one that does, and the others go on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    own_sources.write("own_lost", LOST)
    options = {"model": "own_lost:Net", "updates": 6, "vocabulary_size": 5, "lanes": 2}
    grid = grid_of("aligned", {"model_options": ["bad=True", "bad=False"]}, 1, options)
    rows = run_sweep(grid, tmp_path / "sweep", executor=Here())
    assert [row["status"] for row in rows] == ["failed", "finished"]
    failure = json.loads(RunDirectory(tmp_path / "sweep" / rows[0]["run"]).failure.read_text())
    assert failure["reason"] == rows[0]["reason"]
    assert failure["reason"].startswith(f"The loss is not finite at update {failure['update']}, on sequence")
    assert "Seed 1; " in failure["reason"]
    assert (tmp_path / "sweep" / "table.md").exists()


def test_no_class_that_a_file_names_is_run_by_itself(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    own_sources.write("own_seen", own_sources.WITNESS)
    for text in ("model: own_seen:Net\n", "grid:\n  model: [lstm, 'own_seen:Net']\n"):
        Path("grid.yaml").write_text(f"updates: 4\nvocabulary_size: 5\n{text}")
        assert main(["sweep", "--config", "grid.yaml"]) == 2
        assert "must repeat" in capfd.readouterr().err
    words = ["sweep", "--config", "grid.yaml", "--grid", "model=own_seen:Net", "--no-progress", "--jobs", "1"]
    assert main(words) == 0
    Path("it-was-run").unlink()
    own_sources.forget("own_seen")
    assert [row["status"] for row in read_sweep("runs/sweep")] == ["finished"]
    assert not Path("it-was-run").exists()


def test_what_a_run_alone_would_refuse_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("short.txt").write_text("0 1 2 " * 4)
    for axes, sentence in (
        ({"accelerator": "cpu,cuda"}, "needs a CUDA device"),
        ({"devices": "1,3"}, "`devices` must be at most the number of lanes, 2"),
        ({"data": "short.txt"}, "is too short for 2 lanes: for evaluation"),
        ({"data": "none,nothing.txt"}, "Cannot read 'nothing.txt'"),
    ):
        options = {name: value for name, value in SMALL.items() if name != "vocabulary_size"}
        with pytest.raises(UserError, match=sentence):
            run_sweep(grid_of("aligned", axes, 1, options), "sweep", executor=Here())
        assert not Path("sweep").exists()


def test_the_vocabulary_of_data_is_inferred_as_for_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("seven.txt").write_text("6 1 2 " * 40)
    Path("two.txt").write_text("0 1 1 " * 40)
    grid = grid_of("lag", {"data": "seven.txt,two.txt"}, 2)
    assert [c.vocabulary_size for c in grid.runs().values()] == [7, 7, 2, 2]
    given = grid_of("lag", {"data": "seven.txt,two.txt"}, 1, {"vocabulary_size": 9})
    assert [c.vocabulary_size for c in given.runs().values()] == [9, 9]


def test_names_of_runs_are_unique_and_names():
    """A text that seems to hold the next axis; one that is a path; bytes that are no text; one as long as a path."""
    texts = ["a-seriesb", "a", "../a", "a/b", "ä", "\udcff", "x" * 300, "one-hot", "1-2", "."]
    series = ["c", "b-seriesc"]
    grid = grid_of("lag", {"column": texts, "series": series}, 2, {"data": "x.csv"})
    names = [name for place in grid.places() for name in grid.names(place)]
    assert len(set(names)) == len(texts) * len(series) * 2
    assert all(len(name) < 200 and "/" not in name and name.isascii() for name in names)
    assert grid_of("lag", {"encoding": "one-hot"}).names({"encoding": "one-hot"}) == ["encodingone-hot-seed1"]


def test_a_large_grid_can_be_read_again(tmp_path):
    grid = grid_of("lag", {"hidden_size": list(range(1, 15_001))})
    write_grid(grid, tmp_path / "grid.yaml")
    assert len(read_grid(tmp_path / "grid.yaml")["grid"]["hidden_size"]) == 15_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mode: lag\nseeds: 1\n", "it has no 'grid'"),
        ("mode: lag\nseeds: 2.5\ngrid: {lag: [1]}\n", "seeds must be a whole number"),
        ("mode: lag\nseeds: 0\ngrid: {lag: [1]}\n", "seeds must be a whole number between 1 and"),
        ("mode: lag\nseeds: 1\ngrid: {lagg: [1]}\n", "There is no 'lagg'"),
        ("mode: lag\nseeds: 1\ngrid: 5\n", "must give 'grid' names with a list of values each"),
        ("mode: lag\nseeds: 1\ngrid:\n", "must give 'grid' names with a list of values each"),
    ],
)
def test_a_damaged_grid_is_named(tmp_path, text, sentence):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError, match=f"grid.yaml' .*{sentence}"):
        read_sweep(tmp_path)


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


def test_a_figure_tells_long_values_apart():
    """They differ in their ends, and stand beside one another; a title says what all runs have in common."""
    paths = [f"data/of/a/long/way/number{n}/file.csv" for n in range(3)]
    assert len({_as_label(path) for path in paths}) == 3
    assert [_as_label(value) for value in (None, 0.001, "short")] == ["none", "0.001", "short"]
    grid = grid_of("lag", {"vocabulary_size": "5,6"}, 2)
    assert title_of(grid, configure("lag", vocabulary_size=5)) == "mode lag, 2 seeds"
    assert (
        title_of(grid_of("lag", {"lag": "1"}, 2), configure("lag", vocabulary_size=5)) == "mode lag, 5 symbols, 2 seeds"
    )


@pytest.mark.parametrize(
    "axes", [{"data": "x"}, {"lag": [0, 1], "data": "x"}, {"lag": [0, 1], "chunk": [2], "data": "x"}]
)
def test_the_words_of_a_figure_do_not_overlap(tmp_path, monkeypatch, axes):
    drawn = []
    monkeypatch.setattr(grid_figures, "save_figure", lambda figure, path: drawn.append(figure))
    axes = {**axes, "data": [f"data/of/a/long/way/number{n}/file.csv" for n in range(8)]}
    cell = {"accuracy": 0.5, "accuracies": [0.5], "accuracy_half_interval": None, "ceiling": 1, "chance": 0.1}
    places = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    draw_grid(axes, [{**place, **cell} for place in places], tmp_path / "figure.png", title="x")
    drawn[0].draw_without_rendering()
    panels = drawn[0].get_axes()[:8] if len(axes) == 3 else drawn[0].get_axes()[:1]
    for words in (
        [label for panel in panels for label in panel.get_xticklabels()],
        [panel.title for panel in panels],
        [panel.xaxis.label for panel in panels],
    ):
        boxes = [word.get_window_extent() for word in words]
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


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
    nothing = in_lines(estimate(grid.runs(), 2, (9, 9)))
    assert nothing[2:4] == ["stacks: none", "time: none"]
    assert _on_workers([4.0, 3.0, 2.0, 1.0], 2) == 5.0


def test_an_axis_takes_the_place_of_an_option_of_a_file_alone(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text("updates: 4\nlag: 1\nhidden_size: 4\n")
    assert main(["sweep", "--config", "grid.yaml", "--grid", "lag=1,3", "--lag", "2"]) == 2
    assert "--grid must not name lag, which is given for every run" in capfd.readouterr().err
    assert main(["sweep", "--config", "grid.yaml", "--grid", "lag=1,3", "--dry-run"]) == 0
    Path("grid.yaml").write_text("updates: 4\nlag: 1\ngrid:\n  lag: [1, 2]\n")
    assert main(["sweep", "--config", "grid.yaml"]) == 2
    assert "--grid must not name lag" in capfd.readouterr().err


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
