"""`StateWatch`: a watch over a whole fit, under each Lightning."""

import copy
import pickle
from itertools import islice
from types import SimpleNamespace

import lightning
import pytest
import pytorch_lightning as pl
import torch
from support.foreign import ROWS, STEPS, no_hooks_are_left
from support.watched_ranks import of_two
from torch import nn
from torch._C import _len_torch_function_stack

import echo_torch
import echo_torch.lightning
from echo_torch import EXPERIMENTS, EchoModule, Stamps, configure, reach
from echo_torch.diagnosis.watching.findings import KINDS
from echo_torch.errors import RuleError
from echo_torch.lab import Plan
from echo_torch.lab.console import quiet_lightning

BOTH = {"pytorch_lightning": (pl, echo_torch), "lightning": (lightning, echo_torch.lightning)}
both = pytest.mark.parametrize("package", BOTH)


def module_of(package):
    """A module as people write it, under a Lightning: its state is an attribute, and `hand_on` stands between."""

    class Own(package.LightningModule):
        def __init__(self, hand_on=lambda state: state, evaluates_aside=True):
            super().__init__()
            torch.manual_seed(0)
            self.core, self.dropout = nn.LSTM(1, 5, batch_first=True), nn.Dropout(0.2)
            self.hand_on, self.evaluates_aside, self.state = hand_on, evaluates_aside, None

        def training_step(self, batch, batch_idx):
            output, state = self.core(self.dropout(batch), self.state)
            self.state = self.hand_on(tuple(field.detach() for field in state))
            return output.square().mean()

        def validation_step(self, batch, batch_idx):
            state = self.core(batch, None if self.evaluates_aside else self.state)[1]
            if not self.evaluates_aside:
                self.state = state

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Own


def series(steps=80):
    return torch.randn(ROWS, steps, 1, generator=torch.Generator().manual_seed(1))


def batches(skip=0, steps=80):
    """Views of one array, each of which goes on where the one before stopped, or `skip` steps later."""
    whole = series(steps)
    return [whole[:, begin : begin + STEPS] for begin in range(0, steps - STEPS + 1, STEPS + skip)]


def loader(given):
    return torch.utils.data.DataLoader(given, batch_size=None)


def trainer_of(package, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    options = {"enable_model_summary": False, "num_sanity_val_steps": 2, "max_epochs": 1, **quiet, **options}
    return package.Trainer(callbacks=list(callbacks), **options)


def fit(package, module, *given, seen=None, **options):
    outer, parts = BOTH[package]
    seen = parts.StateWatch() if seen is None else seen
    with quiet_lightning():
        trainer_of(outer, seen, **options).fit(module, *map(loader, given))
    return seen


def kinds(seen):
    return [(finding.kind, finding.module, finding.count) for finding in seen.faults]


def nothing_is_left():
    return no_hooks_are_left() and _len_torch_function_stack() == 0


@both
def test_a_healthy_fit(package, capsys):
    seen = fit(package, module_of(BOTH[package][0])(), batches(), batches()[:3])
    assert (seen.faults, seen.unknown) == ([], [])
    report = capsys.readouterr().err.splitlines()
    assert report == ["StateWatch:", *(f"  {line}" for line in seen.lines())]
    assert report[1:] == [
        "  core is called 20 times in training: 19 with what an earlier call left, 1 without a state.",
        f"  core: gap: 0, each row goes on where it stopped ({ROWS * 79} hand-overs); reachable lags: "
        f"0 to 24 (none above is looked at); horizon: {STEPS} steps.",
        "  No fault was seen.",
    ]
    assert seen.findings == {"findings": [], "unknown": []}
    assert nothing_is_left()


@both
def test_what_is_wrong_is_said(package, capsys):
    module = module_of(BOTH[package][0])(lambda state: state[::-1])
    seen = fit(package, module, batches(skip=2))
    skips = len(batches(skip=2)) - 1
    assert kinds(seen) == [("rows-skip", "core", ROWS * skips), ("fields-swapped", "core", skips)]
    assert seen.reach().gaps == {0: ROWS * (STEPS - 1) * (skips + 1), 2: ROWS * skips}
    assert "rows-skip in core: " in capsys.readouterr().err
    assert [one["kind"] for one in seen.findings["findings"]] == ["rows-skip", "fields-swapped"]


@both
def test_what_is_meant_to_be_so_stands_apart(package):
    seen = BOTH[package][1].StateWatch(intended=["rows-skip"])
    fit(package, module_of(BOTH[package][0])(), batches(skip=2), seen=seen)
    assert seen.faults == []
    assert [finding.kind for finding in seen.intended] == ["rows-skip"]
    assert [line[:28] for line in seen.lines()[2:]] == ["No fault was seen.", "intended: rows-skip in core:"]


@both
def test_validation_and_the_sanity_check_count_as_evaluation(package):
    module = module_of(BOTH[package][0])(evaluates_aside=False)
    seen = fit(package, module, batches(), batches()[:3], val_check_interval=5)
    assert ("validation-leak", "core", 4) in kinds(seen)  # after the sanity check, and after three validations
    seen = fit(package, module_of(BOTH[package][0])(), batches(), batches()[:3], val_check_interval=5)
    assert seen.faults == []


@both
def test_a_fit_is_the_same_to_the_bit(package, tmp_path):
    outer, parts = BOTH[package]
    left = []
    for callbacks in ([], [parts.StateWatch(updates=6)]):
        module = module_of(outer)()
        runner = trainer_of(outer, *callbacks)
        with quiet_lightning():
            torch.manual_seed(3)
            runner.fit(module, loader(batches()), loader(batches()[:3]))
            runner.save_checkpoint(tmp_path / "x.ckpt")
        left.append((module.state_dict(), torch.get_rng_state(), torch.load(tmp_path / "x.ckpt", weights_only=True)))
    (weights, random, checkpoint), (watched, random_after, checkpoint_after) = left
    assert all(torch.equal(weights[name], watched[name]) for name in weights)
    assert torch.equal(random, random_after)
    for saved in (checkpoint, checkpoint_after):
        assert saved.pop("state_dict").keys() == weights.keys()
    assert str(checkpoint) == str(checkpoint_after)


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("as it comes"), RuntimeError), (KeyboardInterrupt(), SystemExit)]
)
@both
def test_an_exception_ends_the_watch_and_is_reported(package, error, raised, capsys):
    def hand_on(state):
        calls.append(None)
        if len(calls) == 7:
            raise error
        return state

    calls = []
    seen = BOTH[package][1].StateWatch()
    with pytest.raises(raised):
        fit(package, module_of(BOTH[package][0])(hand_on), batches(skip=2), seen=seen)
    assert kinds(seen) == [("rows-skip", "core", ROWS * 6)]
    assert capsys.readouterr().err.count("StateWatch:") == 1
    assert nothing_is_left()


@both
def test_several_fits_are_watched_one_by_one(package, capsys):
    seen = BOTH[package][1].StateWatch()
    fit(package, module_of(BOTH[package][0])(), batches(skip=2), seen=seen)
    assert [kind for kind, *_ in kinds(seen)] == ["rows-skip"]
    fit(package, module_of(BOTH[package][0])(), batches(), seen=seen)
    assert seen.faults == []
    assert capsys.readouterr().err.count("StateWatch:") == 2
    assert nothing_is_left()


def test_no_more_updates_than_asked_for_are_watched():
    seen = fit("pytorch_lightning", module_of(pl)(), batches(), seen=echo_torch.StateWatch(updates=6))
    assert seen.lines()[0].startswith(
        "core is called 7 times"
    )  # and the last of the pass, behind which another may begin
    assert (seen.reach().chunks, seen.reach().is_whole) == (6, False)


def test_before_a_fit_nothing_is_known():
    seen = echo_torch.StateWatch()
    assert seen.lines() == ["unknown: No fit has been watched yet."]
    assert (seen.faults, seen.intended, seen.reach()) == ([], [], None)


def test_it_goes_to_other_processes_without_what_it_saw():
    seen, module = echo_torch.StateWatch(), module_of(pl)()
    seen.on_fit_start(SimpleNamespace(global_rank=0, world_size=1), module)
    for batch in batches(skip=2):
        module.training_step(batch, 0)
    for other in (copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
        assert other.unknown == ["No fit has been watched yet."]
        other.teardown(None, module, "fit")
    assert seen.faults
    assert not no_hooks_are_left()
    seen.teardown(None, module, "fit")
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"updates": 0}, "`updates` must be at least 1. Got 0"),
        ({"intended": "rows-skip"}, "`intended` must be a list of kinds. Got 'rows-skip'"),
        ({"intended": ["rows-skp"]}, r"a kind of finding. Got 'rows-skp'.*did you mean 'rows-skip'"),
        ({"stamps": 3}, "`stamps` must be a function of a batch. Got int"),
    ],
)
def test_what_is_refused(options, rule):
    with pytest.raises(RuleError, match=rule):
        echo_torch.StateWatch(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_intended(kind):
    assert echo_torch.StateWatch(intended=[kind]).intended == []


# --- batches that say where they stand ----------------------------------------------------------------------------


def copied(skip):
    """Batches of which nobody could tell where they come from, with their steps."""
    at = torch.arange(80).expand(ROWS, 80)
    return [
        {"x": series()[:, begin : begin + STEPS].clone(), "at": at[:, begin : begin + STEPS]}
        for begin in range(0, 77, STEPS + skip)
    ]


class OfDicts(module_of(pl)):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch["x"], batch_idx)


@pytest.mark.parametrize("skip", [0, 3])
def test_stamps_tell_where_batches_stand(skip):
    def stamps(batch):
        return batch["x"], Stamps(step=batch["at"])

    seen = fit("pytorch_lightning", OfDicts(), copied(skip))
    assert seen.reach() is None
    hand_overs = ROWS * (len(copied(skip)) - 1)
    assert seen.faults == []
    assert f"core: at {hand_overs} of {hand_overs} hand-overs it is not known whether a row" in seen.unknown[0]
    seen = fit("pytorch_lightning", OfDicts(), copied(skip), seen=echo_torch.StateWatch(stamps=stamps))
    expected = reach(copied(skip), stamps=lambda batch: Stamps(step=batch["at"]), is_repeated=False)
    assert seen.reach() == expected
    assert [kind for kind, *_ in kinds(seen)] == list(expected.faults)
    assert seen.unknown == []


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_the_modes_say_what_reach_says(mode):
    """Gaps, resets and reach of a fit are those of its loader; a fault is one that `reach` has too."""
    plan = Plan(configure(mode))
    chunks, lag = list(islice(plan.training(), 12)), plan.configuration.reading.lag
    seen = fit("pytorch_lightning", EchoModule(plan.model()), chunks, max_epochs=None, max_steps=12)
    expected = reach(chunks, lag, vocabulary_size=100, is_repeated=False)
    assert seen.reach(lag=lag, vocabulary_size=100) == expected
    assert [kind for kind, *_ in kinds(seen)] == list(expected.faults)
    first = seen._watch._beginnings(0)
    empty = [[row in set(call.entering.empty_lanes) for row in range(call.num_rows)] for call in first]
    assert empty == [chunk.starts.tolist() for chunk in chunks]
    assert seen.unknown == []


# --- several processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_ranks_the_first_reports_of_its_own_rows(rank, capsys):
    seen, module = echo_torch.StateWatch(), module_of(pl)()
    seen.on_fit_start(SimpleNamespace(global_rank=rank, world_size=2), module)
    for batch in batches()[:3]:
        module.training_step(batch, 0)
    seen.teardown(None, module, "fit")
    said = f"Rank {rank} of 2 speaks of its own rows alone; of the other ranks' nothing is known here."
    assert seen.unknown == [said]
    report = capsys.readouterr().err
    assert ("StateWatch (rank 0 of 2, of its own rows):" in report) == (rank == 0)
    assert (f"unknown: {said}" in report) == (rank == 0)
    assert nothing_is_left()


@pytest.mark.slow
def test_two_ranks_watch_their_own_rows_and_train_as_without(tmp_path):
    (first, said), (second, silent) = of_two(tmp_path, is_watched=True)
    (plain, _), _ = of_two(tmp_path, is_watched=False)
    assert first["findings"] == []
    assert [(one["kind"], one["module"], one["count"]) for one in second["findings"]] == [("rows-skip", "core", 27)]
    assert first["unknown"] == ["Rank 0 of 2 speaks of its own rows alone; of the other ranks' nothing is known here."]
    assert "StateWatch (rank 0 of 2, of its own rows):" in said
    assert "StateWatch" not in silent
    assert first["sha256"] == second["sha256"] == plain["sha256"]
