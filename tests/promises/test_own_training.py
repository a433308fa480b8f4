"""A training of one's own with `Carry` that was killed ends bit for bit as one that never was."""

import os
import random
import shutil
import time

import pytest
import torch
from support import own_training
from support.processes import SPAWN

KILLS = int(os.environ.get("KILLS", "3"))  # 20 in the full count
KINDS = {
    "loop": (own_training.in_a_loop, "last.pt"),
    "module": (own_training.in_a_module, "last.ckpt"),
    "two ranks": (own_training.in_a_module_of_two_ranks, "last.ckpt"),
}


def start(function, folder):
    process = SPAWN.Process(target=function, args=(str(folder),))
    process.start()
    return process


def finished(function, folder):
    """Run it to its end; the weights and the carried state that it left."""
    folder.mkdir(exist_ok=True)
    process = start(function, folder)
    process.join(240)
    assert process.exitcode == 0
    return torch.load(folder / "end.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again_and_gone_on_with(kind, tmp_path):
    function, name = KINDS[kind]
    expected = finished(function, tmp_path / "whole")
    folder, moments, kills, latest = tmp_path / "killed", random.Random(kind), 0, 2.0
    folder.mkdir()
    while kills < KILLS:
        before = _written(folder / name)
        process = start(function, folder)
        while kills and _written(folder / name) == before and process.is_alive():
            time.sleep(0.002)
        time.sleep(
            moments.uniform(0, 0.03 if kills else latest)
        )  # the first comes before anything was saved, or just after
        if not process.is_alive():  # it was quicker than the kill: once more from the beginning, and earlier
            kills, latest = 0, latest / 2
            assert latest > 0.001
            shutil.rmtree(folder)
            folder.mkdir()
            continue
        process.kill()
        process.join()
        kills += 1
    found = finished(function, folder)
    print(f"{kind}: {kills} kills")
    assert kills == KILLS
    for name, weights in expected["weights"].items():
        assert torch.equal(weights, found["weights"][name])
    for one, two in zip(expected["state"], found["state"], strict=True):
        assert torch.equal(one, two)


def _written(path):
    return path.stat().st_mtime_ns if path.exists() else 0
