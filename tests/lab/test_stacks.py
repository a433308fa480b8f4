"""Runs side by side: each is as it is alone, to the bit, and one that ends does not disturb the others."""

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from echo_torch import UserError, configure, replace, train
from echo_torch.lab import locks, members, stacks
from echo_torch.lab.many import train_many
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.stacks import train_work, works_of
from echo_torch.training.checkpoints import read_checkpoint

SMALL = {"accelerator": "cpu", "hidden_size": 9, "vocabulary_size": 12, "log_every": 10, "checkpoint_every": 15}


def differing(mode, num=5, **options):
    """Runs of one shape that differ in all that may differ."""
    rates = [1e-3, 1e-2, 1e-3, 3e-3, 1e-2]
    runs = {}
    for n in range(num):
        own = {"lag": 2 if mode == "sequence" else n % 3, "missing": [0.0, 0.1][n // 2 % 2], "learning_rate": rates[n]}
        if mode != "sequence":
            own["carry"] = ["keep", "reset"][n % 2]
        runs[f"run{n}"] = configure(mode, seed=n + 1, **own, **{**SMALL, **options})
    return runs


def train_stack(runs, folder):
    (work,) = works_of(runs, folder, 1)
    assert work.is_stack
    folder.mkdir(exist_ok=True)
    return train_work(work)


def left_behind(run):
    """What a run has left, without what hangs on the clock, on Lightning's batches, or on random states of others."""
    result = run.read_result()
    checkpoint = read_checkpoint(run.checkpoint)
    for name in ("seconds", "updates_per_second"):
        assert result.pop(name) > 0
    assert checkpoint["run"].pop("seconds") > 0
    (rank,) = checkpoint["carried_state"]["ranks"]
    assert set(rank.pop("random")) == {"python", "numpy", "torch"}
    loops = checkpoint.pop("loops")
    checkpoint["updates"] = loops["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]
    texts = {path.name: path.read_bytes() for path in run.path.glob("*.csv")}
    return {"result": result, "checkpoint": checkpoint, "config": run.config.read_bytes(), **texts}, keys_of(loops)


def keys_of(value):
    return {key: keys_of(part) for key, part in value.items()} if isinstance(value, dict) else type(value)


def assert_same(one, other, where=""):
    """Equal in every bit, and tensors also in how they stand in memory."""
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{number}")
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride()), where
        assert torch.equal(one, other), where
        assert one.untyped_storage().nbytes() == other.untyped_storage().nbytes(), where
    else:
        assert one == other, where


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("lag", {"sequences": 12, "validate_every": 20}),
        ("aligned", {"updates": 33, "lanes": 3, "chunk": 4, "clip_norm": 0.3}),
        ("stateful", {"sequences": 8, "layers": 2, "init": "keras"}),
        ("sequence", {"sequences": 20, "encoding": "digits", "base": 4, "length": 10}),
        ("aligned", {"updates": 4, "lanes": 3, "log_every": 1}),  # each update is a block of its own
    ],
)
def test_members_are_as_they_are_alone(tmp_path, mode, options):
    runs = differing(mode, **options)
    assert train_stack(runs, tmp_path / "stack") == {}
    for name in ("run0", "run3", "run4"):
        train(runs[name], RunDirectory(tmp_path / name), audit="count")
        found, expected = (left_behind(RunDirectory(path)) for path in (tmp_path / "stack" / name, tmp_path / name))
        assert_same(found[0], expected[0])
        assert found[1] == expected[1]  # Lightning goes on from it
        made = {path.name for path in (tmp_path / "stack" / name).iterdir()}
        assert made == {path.name for path in (tmp_path / name).iterdir()} | {"sweep.yaml"}


def test_networks_of_one_unit_are_trained_alone(tmp_path):
    """Products whose result has one column have other last bits where they are some of several."""
    runs = {f"{n}": configure("aligned", seed=n, hidden_size=1, updates=2, accelerator="cpu") for n in range(3)}
    assert [work.is_stack for work in works_of(runs, tmp_path, 1)] == [False] * 3


def test_a_trainer_goes_on_where_a_member_was(tmp_path):
    short = differing("lag", sequences=12)
    train_stack(short, tmp_path / "stack")
    run = RunDirectory(tmp_path / "stack" / "run1")
    longer = replace(short["run1"], sequences=20)
    train(longer, run, audit="count", resume="auto")
    other = RunDirectory(tmp_path / "alone")
    train(longer, other, audit="count")
    assert run.read_result()["weights_sha256"] == other.read_result()["weights_sha256"]
    assert run.metrics.read_bytes() == other.metrics.read_bytes()


def test_a_stack_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    """Killed while it saves, so that some members are further than others; and once more before anything is saved."""
    runs = differing("lag", sequences=12, validate_every=7)
    train_stack(runs, tmp_path / "whole")
    monkeypatch.setattr(members, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(members, "FILES_AT_A_TIME", 1)
    for num_saves in (0, 7, 2):
        saved, write = [], members.write_checkpoint

        def write_some(*arguments, saved=saved, write=write, most=num_saves):
            if len(saved) == most:
                raise KeyboardInterrupt
            saved.append(write(*arguments))

        monkeypatch.setattr(members, "write_checkpoint", write_some)
        with pytest.raises(KeyboardInterrupt):
            train_stack(runs, tmp_path / "killed")
        monkeypatch.setattr(members, "write_checkpoint", write)
    killed = [RunDirectory(tmp_path / "killed" / name) for name in runs]
    assert {read_checkpoint(run.checkpoint)["global_step"] for run in killed} == {15, 30}
    train_stack(runs, tmp_path / "killed")
    for name in runs:
        found, expected = (left_behind(RunDirectory(tmp_path / which / name)) for which in ("killed", "whole"))
        assert_same(found[0], expected[0])


def test_a_loss_that_is_not_finite_ends_its_member_alone(tmp_path, monkeypatch):
    runs = differing("lag", sequences=12)
    train_stack(runs, tmp_path / "good")
    answer, counter = torch.log_softmax, itertools.count()

    def not_finite(logits, dim):
        likelihood = answer(logits, dim)
        if next(counter) == 36:
            likelihood[2] = float("nan")
        return likelihood

    monkeypatch.setattr(torch, "log_softmax", not_finite)
    failures = train_stack(runs, tmp_path / "stack")
    assert list(failures) == ["run2"]
    assert "The loss is not finite at update 37, on sequence 9; " in failures["run2"]
    assert "Seed 3; no checkpoint was saved before." in failures["run2"]
    failed = RunDirectory(tmp_path / "stack" / "run2")
    assert json.loads(failed.failure.read_text()) == {"format": 1, "seed": 3, "update": 37, "reason": failures["run2"]}
    assert not failed.result.exists()
    for name in ("run0", "run4"):
        found, expected = (left_behind(RunDirectory(tmp_path / which / name)) for which in ("stack", "good"))
        assert_same(found[0], expected[0])
    monkeypatch.setattr(torch, "log_softmax", lambda logits, dim: answer(logits, dim) * float("nan"))
    with pytest.raises(UserError, match=r"The run 'run2' has failed: .* at update 1, .* All others are finished\."):
        train_many(runs, tmp_path / "stack", executor=Executor())


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    runs = differing("lag", sequences=12)
    is_finite = stacks.train_side_by_side.__globals__["Stack"].is_finite
    monkeypatch.setattr("echo_torch.training.stacks.Stack.is_finite", lambda self, n: n != 1 and is_finite(self, n))
    failures = train_stack(runs, tmp_path / "stack")
    assert list(failures) == ["run1"]
    assert failures["run1"].startswith("The weights are not finite any more after update 48.")


def test_runs_of_one_shape_are_together(tmp_path):
    runs = {
        **{f"a{n}": configure("lag", seed=n, lag=n % 4, learning_rate=0.001 * (1 + n)) for n in range(40)},
        **{f"b{n}": configure("aligned", seed=n, chunk=1 + n % 2) for n in range(10)},
        "gru": configure("lag", model="gru"),
        "autograd": configure("lag", kernel="autograd"),
        "long": configure("lag", sequences=2001),
        "board": configure("lag", seed=77, tensorboard=True),
    }
    works = works_of(runs, tmp_path, 2)
    parts = [{name for name, _ in work.runs} for work in works]
    assert sorted(name for part in parts for name in part) == sorted(runs)
    sizes = {frozenset(name[0] for name in part): [] for part in parts}
    for work, part in zip(works, parts, strict=True):
        assert work.is_stack == part.isdisjoint({"gru", "autograd", "board"})
        sizes[frozenset(name[0] for name in part)].append(len(part))
    assert sizes[frozenset("a")] == [10, 10, 10, 10, 1]  # two for each worker; the last one is `autograd`
    assert sizes[frozenset("b")] == [5, 5, 1]  # `board`
    assert [work.num_updates for work in works] == sorted((work.num_updates for work in works), reverse=True)


def test_a_stack_of_large_networks_is_small(tmp_path):
    runs = {f"run{n}": configure("lag", seed=n, hidden_size=400) for n in range(20)}
    sizes = [len(work.runs) for work in works_of(runs, tmp_path, 1)]
    parameters = 4 * 400 * (100 + 400 + 2) + 100 * 401
    assert sum(sizes) == 20
    assert max(sizes) * parameters * 16 <= 100e6 < (max(sizes) + 2) * parameters * 16


def test_shards_share_all_runs_by_a_rule(tmp_path):
    runs = {f"run{n}": configure("lag", seed=n, lag=n % 4) for n in range(11)} | {"gru": configure("lag", model="gru")}
    parts = [[name for work in works_of(runs, tmp_path, 2, (k, 3)) for name, _ in work.runs] for k in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(runs)
    assert all(3 <= len(part) <= 5 for part in parts)


def test_a_run_that_autograd_began_goes_on_by_autograd(tmp_path):
    c = configure("lag", **SMALL, sequences=12)
    run = RunDirectory(tmp_path / "one")
    train(replace(c, kernel="autograd"), run, audit="count")
    run.result.unlink()
    (work,) = works_of({"one": c}, tmp_path, 1)
    assert not work.is_stack


def test_workers_bring_no_lightning(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom echo_torch import configure\n"
        "from echo_torch.lab.stacks import train_work, works_of\n"
        f"runs = {{str(n): configure('lag', seed=n, sequences=2, **{SMALL!r}) for n in range(3)}}\n"
        f"(work,) = works_of(runs, Path({str(tmp_path)!r}), 1)\ntrain_work(work)\n"
        "print([name for name in ('pytorch_lightning', 'torch._dynamo', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Later:
    """What `concurrent.futures` calls a future, and nothing more than is asked of one."""

    def __init__(self, function, argument):
        self._call, self._asked = (function, argument), 0

    def done(self):
        self._asked += 1
        return self._asked > 1

    def result(self):
        function, argument = self._call
        return function(argument)


class Executor:
    def submit(self, function, argument):
        return Later(function, argument)


def test_any_executor_will_do(tmp_path):
    runs = differing("lag", sequences=3)
    here = train_many(runs, tmp_path / "a", executor=Executor())
    with ThreadPoolExecutor(2) as pool:
        there = train_many(runs, tmp_path / "b", executor=pool, num_jobs=2)
    assert list(here) == list(there) == list(runs)
    assert all(here[name]["weights_sha256"] == there[name]["weights_sha256"] for name in runs)


def test_a_worker_that_comes_again_trains_nothing_twice(tmp_path):
    runs = differing("lag", sequences=3)
    train_stack(runs, tmp_path / "stack")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stack").rglob("*")}
    train_stack(runs, tmp_path / "stack")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "stack").rglob("*")} == before


def test_shards_work_in_one_folder_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS", 0.1)
    runs = differing("lag", sequences=3)
    refused = []

    class Other(Executor):
        def submit(self, function, argument):
            for shard in (None, "1/2"):
                with pytest.raises(UserError, match=r"Another sweep works in .* `shard` 1/2 and `shard` 2/2") as error:
                    train_many(runs, tmp_path, executor=Executor(), shard=shard)
                refused.append(error)
            both.update(train_many(runs, tmp_path, executor=Executor(), shard="2/2"))
            return super().submit(function, argument)

    both = {}
    found = train_many(runs, tmp_path, executor=Other(), shard="1/2")
    assert len(refused) == 2
    assert list(both) == ["run1", "run3"]
    assert list(found) == list(runs)
    assert {path.name for path in tmp_path.iterdir()} == set(runs)
    for wrong in ("0/2", "3/2", "2", "1/x", "1/2/3"):
        with pytest.raises(UserError, match="must be a part and how many there are"):
            train_many(runs, tmp_path, shard=wrong)


@pytest.mark.gpu
def test_members_on_a_gpu_are_as_alone_within_rounding(tmp_path):
    options = {"sequences": 12, "validate_every": 24, "accelerator": "cuda"}
    runs = differing("lag", **options)
    assert train_stack(runs, tmp_path / "stack") == {}
    train(runs["run3"], RunDirectory(tmp_path / "alone"), audit="count")
    found, expected = (
        read_checkpoint(RunDirectory(path).checkpoint)["state_dict"]
        for path in (tmp_path / "stack/run3", tmp_path / "alone")
    )
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-4, rtol=1e-3)
    validated, validated_alone = (
        RunDirectory(path).read_validation()["loss"] for path in (tmp_path / "stack/run3", tmp_path / "alone")
    )
    assert len(validated) == 2
    assert validated == pytest.approx(validated_alone, abs=1e-3)
