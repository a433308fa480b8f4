"""Several updates of one batch: everything else happens where it does with one."""

import itertools

import numpy as np
import pytest
import torch

from echo_torch import EchoStream, LaneLayout, RandomSymbols, RunDirectory, configure, train
from echo_torch.errors import UserError
from echo_torch.training.blocks import BlockEnds, BlockModule


def blocks_of(ends, begin, last):
    """The blocks that a loader makes: (first, end) each."""
    found = []
    while begin < last:
        found.append((begin, ends(begin)))
        begin = found[-1][1]
    return found


def test_blocks_end_at_multiples_and_at_the_last_update():
    ends = BlockEnds([7, 10], last=25)
    ends.num_updates = 100
    borders = [0, 7, 10, 14, 20, 21, 25, 28, 30, 35, 40]
    assert blocks_of(ends, 0, 40) == list(itertools.pairwise(borders))
    assert blocks_of(ends, 12, 20) == [(12, 14), (14, 20)]


def test_blocks_hold_at_most_what_is_done_in_a_twentieth_of_a_second():
    ends = BlockEnds([10**9], last=10**9)
    assert ends(0) == 1
    for expected in (2, 4, 8, 16, 25, 25):
        ends.took(10, seconds=0.01)
        assert ends(0) == expected
    ends.took(1, seconds=3.0)
    assert ends(5) == 6


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_of_blocks_gives_the_same_chunks(num_workers):
    stream = EchoStream(LaneLayout(3, 4, lag=1, reset_every=9), RandomSymbols(10), num_chunks=23, start=2)
    ends = BlockEnds([5], last=17)
    ends.num_updates = 3
    blocks = list(stream.loader(num_workers=num_workers, block=ends))
    assert [(int(block.index[0]), int(block.index[-1]) + 1) for block in blocks] == [
        (2, 5), (5, 8), (8, 10), (10, 13), (13, 15), (15, 17), (17, 20), (20, 23),
    ]  # fmt: skip
    chunks = list(stream)
    for field in range(5):
        together = np.concatenate([block[field] for block in blocks])
        assert np.array_equal(together, torch.stack([chunk[field] for chunk in chunks]).numpy())


def rows_of(run):
    return run.metrics.read_bytes(), run.validation.read_bytes() if run.validation.exists() else b""


OPTIONS = {"updates": 60, "log_every": 7, "checkpoint_every": 10, "validate_every": 12, "accelerator": "cpu"}


def fixed_length(monkeypatch, number):
    monkeypatch.setattr(BlockEnds, "took", lambda ends, num_updates, seconds: setattr(ends, "num_updates", number))


def test_the_length_of_blocks_changes_no_file(tmp_path, monkeypatch):
    """Rows, validations, weights and what is carried are the same, however many updates a block holds."""
    found = []
    for number in (1, 4, 1000):
        fixed_length(monkeypatch, number)
        run = RunDirectory(tmp_path / str(number))
        result = train(configure("aligned", lanes=3, **OPTIONS), run)
        assert [row["update"] for row in dicts(run.read_validation())] == [12, 24, 36, 48, 60]
        assert [row["update"] for row in dicts(run.read_metrics())] == [*range(7, 60, 7), 60]
        found.append((*rows_of(run), result["weights_sha256"], result["gaps"]))
    assert found[0] == found[1] == found[2]


def dicts(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_a_validation_changes_no_update(tmp_path):
    """It lets go of the weights that the updates share."""
    with_it, without = (
        train(configure("lag", **{**OPTIONS, "validate_every": number}), RunDirectory(tmp_path / str(number)))
        for number in (12, None)
    )
    assert with_it["config"]["kernel"] == "direct"
    assert with_it["weights_sha256"] == without["weights_sha256"]


@pytest.mark.parametrize("ended_at", [10, 20, 24, 30, 36, 50])
def test_a_run_that_ended_inside_what_was_a_block_goes_on_exactly(tmp_path, monkeypatch, ended_at):
    """Validations stay at multiples of `validate_every`, though Lightning counts batches."""
    fixed_length(monkeypatch, 5)
    whole = train(configure("lag", **OPTIONS), RunDirectory(tmp_path / "whole"))
    run = RunDirectory(tmp_path / "run")

    class EndedError(Exception):
        pass

    step = BlockModule.training_step

    def ends_there(module, block, batch_idx):
        step(module, block, batch_idx)
        if module.trainer.global_step > ended_at:
            raise EndedError

    monkeypatch.setattr(BlockModule, "training_step", ends_there)
    with pytest.raises(EndedError):
        train(configure("lag", **OPTIONS), run)
    monkeypatch.setattr(BlockModule, "training_step", step)
    fixed_length(monkeypatch, 3)
    result = train(configure("lag", **OPTIONS), run, resume="auto")
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert rows_of(run) == rows_of(RunDirectory(tmp_path / "whole"))


def test_a_loss_that_is_not_finite_names_its_update(tmp_path, monkeypatch):
    """It lies in the middle of a block; what is saved is from before."""
    fixed_length(monkeypatch, 50)
    answer, counter = torch.log_softmax, itertools.count()

    def not_finite(logits, dim):
        return answer(logits, dim) * (float("nan") if next(counter) == 36 else 1)

    monkeypatch.setattr(torch, "log_softmax", not_finite)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match=r"not finite at update 37, on sequence 9; .* update 30 is saved in"):
        train(configure("lag", **OPTIONS), run)
    assert not run.result.exists()


def test_clipping_is_done_without_the_trainer(tmp_path):
    """A norm that no gradient reaches changes nothing, a small one does; and it is what autograd's training makes."""
    losses = {}
    for name, clip_norm, kernel in (
        ("none", None, "direct"),
        ("wide", 1e9, "direct"),
        ("narrow", 1e-3, "direct"),
        ("autograd", 1e-3, "autograd"),
    ):
        c = configure("lag", updates=40, clip_norm=clip_norm, kernel=kernel, accelerator="cpu", log_every=40)
        run = RunDirectory(tmp_path / name)
        train(c, run)
        losses[name] = run.read_metrics()["loss"][0]
    assert losses["none"] == losses["wide"]
    assert losses["narrow"] != losses["none"]
    assert losses["narrow"] == pytest.approx(losses["autograd"], abs=1e-6)
