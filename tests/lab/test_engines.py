"""Sweeps on workers of others: whichever is lost, every run is finished once, with the bits that it has at home."""

import contextlib
import importlib.util
import os
import re
import runpy
import shutil
import signal
import tempfile
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from support.engines import RUNS, SHORT, sweep_under_kills

from echo_torch import train_many

TESTS = str(Path(__file__).parents[1])
ROOT = Path(TESTS).parent
pytestmark = pytest.mark.slow


def needs(engine):
    """Not pytest.importorskip: the example sets what Ray reads when it is imported."""
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed; .ci/run installs it")


def example(engine):
    """What its program in examples/ defines."""
    return runpy.run_path(str(ROOT / "examples" / f"sweep_on_{engine}.py"))


def run_what_is_shown(heading, folder, names=None, **changes):
    """Run a block of docs/engines.md, where it says /shared in a folder of ours, with a few short runs."""
    text = (ROOT / "docs" / "engines.md").read_text()
    block = re.search(rf"^## {heading}\n.*?```python\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE)[1]
    for shown, meant in {"/shared": str(folder), **changes}.items():
        assert shown in block
        block = block.replace(shown, meant)
    found = {"runs": SHORT, "RUNS": SHORT, "train_many": train_many, **(names or {})}
    exec(block, found)
    return weights(found["results"])


def weights(results):
    return {name: result["weights_sha256"] for name, result in results.items()}


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    return weights(train_many(RUNS, tmp_path_factory.mktemp("home"), num_jobs=1))


def test_a_dask_worker_is_killed(tmp_path, at_home):
    needs("distributed")
    parts = example("dask")
    with parts["two_workers"]() as cluster, parts["Client"](cluster) as client:
        results = sweep_under_kills(client.get_executor(pure=False), tmp_path / "sweep", kill)
        address = {"tcp://its-scheduler:8786": cluster.scheduler_address}
        shown = run_what_is_shown("dask", tmp_path / "shown", parts | {"RUNS": SHORT}, **address)
    assert weights(results) == at_home
    assert shown.items() <= at_home.items()


@pytest.fixture
def on_ray(monkeypatch):
    """The example's names, and its cluster; its files are in a folder of their own, whose path must be short."""
    needs("ray")
    files = tempfile.mkdtemp(prefix="ray-")
    monkeypatch.setenv("RAY_TMPDIR", files)
    monkeypatch.setenv("PYTHONPATH", TESTS, prepend=os.pathsep)  # its workers import what these tests bring
    before = signal.getsignal(signal.SIGTERM)
    parts = example("ray")
    cluster = parts["two_nodes"]()
    yield parts, cluster
    parts["ray"].shutdown()
    cluster.shutdown()
    signal.signal(signal.SIGTERM, before)
    shutil.rmtree(files, ignore_errors=True)


def test_a_ray_node_is_killed(tmp_path, at_home, on_ray):
    parts, cluster = on_ray

    def kill_node(process):
        """The node with its worker; a fresh one takes its place."""
        raylet = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        (node,) = [one for one in cluster.worker_nodes if one.all_processes["raylet"][0].process.pid == raylet]
        cluster.remove_node(node, allow_graceful=False)
        kill(process)
        cluster.add_node(node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=1)

    results = sweep_under_kills(parts["RayExecutor"](), tmp_path / "sweep", kill_node)
    connected = {'ray.init(address="auto")': ""}
    shown = run_what_is_shown("Ray", tmp_path / "shown", {"ray": parts["ray"]}, **connected)
    assert weights(results) == at_home
    assert shown.items() <= at_home.items()


def test_loky_is_taken_as_it_is(tmp_path, at_home):
    needs("loky")
    from loky import get_reusable_executor
    from loky.process_executor import TerminatedWorkerError

    assert run_what_is_shown("loky", tmp_path).items() <= at_home.items()
    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)
    assert issubclass(TerminatedWorkerError, BrokenProcessPool)  # which is a sentence, as of processes here


def test_submitit_is_taken_as_it_is(tmp_path, at_home):
    needs("submitit")
    assert run_what_is_shown("SLURM", tmp_path).items() <= at_home.items()
    assert list((tmp_path / "logs").glob("*_result.pkl"))
