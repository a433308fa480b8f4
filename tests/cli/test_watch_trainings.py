"""`python -m echo_torch watch` over scripts that train: what they do is the same, and what is said of them is true."""

import json
import os
from pathlib import Path

import pytest
from support import trains
from support.watched_scripts import ROOT, assert_same, both, run

from echo_torch import EXPERIMENTS, configure
from echo_torch.diagnosis.data_path.reaching import DEFAULT_MAX_LAG
from echo_torch.lab.plan import Plan

TRAINS = Path(trains.__file__)
FAULT = """
import echo_torch.diagnosis.watching.calls as calls, sys
def broken(self, *given):
    raise KeyError("mine")
calls.Calls.NAME = broken
sys.argv[0] = "trains.py"
import trains
trains.main()
"""


def test_a_fault_is_named_and_the_process_fails_by_it(tmp_path):
    options = ["--json", "found.json", "--fail-on", "rows-skip", "--fail-on", "fields-swapped", "--updates", "5"]
    ended = run([TRAINS, "--fault", "swap"], tmp_path, options=options)
    assert ended.code == 1
    # The first five updates and four around the end of the first pass and the second; the very first has no state.
    assert "fields-swapped in lstm: In 8 of 8 calls" in ended.report
    (finding,) = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert (finding["kind"], finding["count"], finding["of"]) == ("fields-swapped", 8, 8)


FORKS = """
import os, sys
sys.argv = ["trains.py", "--fault", "swap"]
import trains
trains.main()
if os.fork() == 0:
    sys.exit(0)
print("child:", os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_process_does_not_fail_by_what_was_found_in_this_one(tmp_path):
    (tmp_path / "forks.py").write_text(FORKS)
    path = os.pathsep.join(map(str, (ROOT, TRAINS.parent)))
    ended = run(["forks.py"], tmp_path, options=["--fail-on", "any", "--updates", "5"], PYTHONPATH=path)
    assert ended.code == 1
    assert "child: 0" in ended.out


COUNTS = """
import sys
import echo_torch.diagnosis.watching.seen as seen
worked_out = seen.HandOvers
def counted(*given):
    print("worked out", file=sys.stderr)
    return worked_out(*given)
seen.HandOvers = counted
sys.argv[0] = "trains.py"
import trains
trains.main()
"""


def test_how_rows_go_on_is_worked_out_once(tmp_path):
    """The watch is over before it is asked what was seen, for whatever is written then."""
    (tmp_path / "counts.py").write_text(COUNTS)
    options = ["--json", "found.json", "--plot", "seen.png"]
    ended = run(["counts.py"], tmp_path, options=options, PYTHONPATH=os.pathsep.join(map(str, (ROOT, TRAINS.parent))))
    assert ended.code == 0
    assert "No fault was seen." in ended.report
    assert (tmp_path / "seen.png").exists()
    assert (ended.err + ended.report).count("worked out") == 1


@pytest.mark.slow
def test_what_is_intended_fails_nothing(tmp_path):
    options = ["--json", "found.json", "--fail-on", "any", "--intended", "fields-swapped"]
    ended = run([TRAINS, "--fault", "swap"], tmp_path, options=options)
    assert ended.code == 0
    assert "No fault was seen." in ended.report
    assert "intended: fields-swapped in lstm" in ended.report
    data = json.loads((tmp_path / "found.json").read_text())
    assert (data["findings"], data["intended"][0]["kind"]) == ([], "fields-swapped")
    unintended = run([TRAINS, "--fault", "swap"], tmp_path, options=["--fail-on", "any", "--intended", "axes"])
    assert unintended.code == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "children"),
    [
        ([], None),
        (["--workers", "1", "--method", "fork"], None),
        (["--workers", "1", "--method", "spawn"], None),
        (["--workers", "1", "--method", "forkserver", "--epochs", "1"], None),
        (["--workers", "1", "--method", "fork", "--child", "fork"], "a process"),
        (["--child", "fork"], "a process"),
        (["--child", "spawn"], "a process"),
        (["--child", "forkserver"], "a process"),
    ],
)
def test_a_training_is_the_same(tmp_path, words, children):
    """The same weights, random states, files and classes, with children that are not watched but counted.

    Workers of a loader train nothing, and are none of them.
    """
    watched = assert_same([TRAINS, *words], tmp_path)
    assert "lstm is called" in watched.report
    assert watched.report.count("lstm is called") == 1
    assert ("of its own, of which nothing was seen" in watched.report) == (children is not None)
    assert children is None or f"has started {children} of its own" in watched.report


@pytest.mark.slow
def test_sigterm_comes_after_the_report(tmp_path):
    watched = assert_same([TRAINS, "--ends", "SIGTERM"], tmp_path, code=-15)
    assert "lstm is called" in watched.report


@pytest.mark.slow
def test_an_error_is_shown_without_frames_of_the_watch(tmp_path):
    """Torch itself goes another way where there are hooks; the frames of the script, and the error, are the same."""
    alone, watched = both([TRAINS, "--ends", "error"], tmp_path)
    assert alone.code == watched.code == 1
    assert "lstm is called" in watched.report
    assert "torch/nn/modules/module.py" in watched.err
    assert not [line for line in watched.err.splitlines() if "echo_torch/" in line or "overrides.py" in line]
    ends = [
        [line for line in ended.err.splitlines() if str(TRAINS) in line or not line.startswith(" ")]
        for ended in (alone, watched)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) > 4


@pytest.mark.slow
def test_stop_ends_after_the_updates(tmp_path):
    ended = run([TRAINS, "--epochs", "1000000"], tmp_path, options=["--stop", "--updates", "7"])
    assert (ended.code, ended.out) == (0, "")
    assert "lstm is called 7 times" in ended.report
    failing = run([TRAINS, "--fault", "swap"], tmp_path, options=["--stop", "--updates", "7", "--fail-on", "any"])
    assert (failing.code, failing.out) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leave", "enter", "end_step", "_record", "is_over"])
def test_a_fault_of_the_watch_is_one_line(tmp_path, name):
    (tmp_path / "script.py").write_text(FAULT.replace("NAME", name))
    (tmp_path / "trains.py").write_text(TRAINS.read_text())
    options = ["--json", "found.json", *(["--stop"] if name == "is_over" else [])]
    alone, watched = both(["script.py"], tmp_path, options=options)
    assert (watched.code, watched.out) == (alone.code, alone.out)
    assert watched.report.count("\n") == 1
    assert "by a fault of its own: KeyError: 'mine'" in watched.report
    assert "by a fault of its own" in json.loads((tmp_path / "found.json").read_text())["unknown"][0]


@pytest.mark.slow
def test_nothing_recurrent_is_a_sentence(tmp_path):
    source = "import torch\nmodel = torch.nn.Linear(2, 2)\noptimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
    source += "for _ in range(3):\n    model(torch.ones(1, 2)).sum().backward()\n    optimizer.step()\n"
    (tmp_path / "script.py").write_text(source)
    watched = assert_same(["script.py"], tmp_path)
    sentence = "No recurrent layer of torch.nn was called, so nothing is known of any state."
    assert watched.report == f":\n  {sentence}\n"


@pytest.mark.slow
def test_torchrun(tmp_path):
    """Each rank is watched, and its file bears its number."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["-m", "echo_torch", "watch", "--json", "found.json", TRAINS, "--fault", "swap"]
    ended = run([*torchrun, *options], tmp_path)
    assert ended.code == 0, ended
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found-rank0.json", "found-rank1.json"]
    for path in tmp_path.iterdir():
        assert [finding["kind"] for finding in json.loads(path.read_text())["findings"]] == ["fields-swapped"]
    assert {f", rank {rank}:" in ended.report for rank in (0, 1)} == {True}


LIGHTNING = """
import hashlib, os, sys
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = torch.nn.LSTM(3, 8, batch_first=True), torch.nn.Linear(8, 1)

    def training_step(self, batch):
        return self.head(self.lstm(batch[0])[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    torch.manual_seed(0)
    model = Net()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(torch.randn(16, 6, 3)), 4))
    weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
    with open(f"weights{trainer.global_rank}", "w") as file:
        file.write(hashlib.sha256(weights).hexdigest())
"""


@pytest.mark.slow
def test_lightning_starts_the_script_again(tmp_path):
    """Its other rank is started from `sys.argv` and `__main__`; it is not watched, and trains as it would."""
    (tmp_path / "script.py").write_text(LIGHTNING)
    weights = []
    for options in (None, []):
        ended = run(["-W", "ignore", "script.py"] if options is None else ["script.py"], tmp_path, options=options)
        assert ended.code == 0, ended.err
        weights.append([(tmp_path / f"weights{rank}").read_text() for rank in (0, 1)])
    assert weights[0] == weights[1]
    assert ended.report.count("lstm is called 2 times") == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", [mode for mode in EXPERIMENTS if mode != "sequence"])
def test_a_mode_of_this_project_is_said_to_do_what_reach_says(tmp_path, mode):
    """Gap and reachable lags of a whole script that is told nothing; and the weights are those without the watch."""
    train = ["-m", "echo_torch", "train", "--mode", mode, "--updates", "60", "--quiet", "--kernel", "autograd"]
    ended = run([*train, "--run-dir", "watched"], tmp_path, options=["--json", "found.json", "--updates", "60"])
    assert ended.code == 0
    run([*train, "--run-dir", "plain"], tmp_path, options=None)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("watched", "plain")]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    found = Plan(configure(mode, updates=60)).reach()
    kinds = [one["kind"] for one in json.loads((tmp_path / "found.json").read_text())["findings"]]
    assert kinds == (["rows-skip"] if found.gap else [])
    is_carried = "with what an earlier call left" in ended.report  # else nothing is said of gaps
    assert f"gap: {found.gap}, " in ended.report or not is_carried
    lags = [int(lag) for lag in found.reachable_lags]
    words = f"0 to {lags[-1]}" if lags == list(range(len(lags))) and len(lags) > 4 else ", ".join(map(str, lags))
    end = " (none above is looked at)" if lags[-1:] == [DEFAULT_MAX_LAG] else ""
    assert f"reachable lags: {words}{end}; " in ended.report
