"""Carry: a state handed from batch to batch in anyone's training."""

import copy
import io
import random
import warnings

import lightning
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from echo_torch import Carry
from echo_torch.lab.console import quiet_lightning
from echo_torch.randomness import random_state, restore_random_state
from echo_torch.training import CarryWarning
from echo_torch.training.carry import STAGES

NONE, ALL = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)


def counting(lanes):
    """A state that counts the steps of each lane, from 10 on."""
    return torch.full((lanes, 1), 10.0)


def test_a_state_is_handed_on_and_reset():
    carry = Carry(counting)
    assert carry.state() is None
    assert carry.begin(NONE).tolist() == [[10], [10], [10]]  # nothing was read yet, whatever starts
    carry.end(torch.tensor([[1.0], [2], [3]]))
    assert carry.begin(torch.tensor([False, True, False])).tolist() == [[1], [10], [3]]
    carry.end(torch.tensor([[4.0], [5], [6]]), cursor=2)
    assert carry.begin(ALL).tolist() == [[10], [10], [10]]
    assert carry.cursor == 2


def test_what_is_kept_is_detached_and_what_is_begun_with_is_not():
    start = nn.Parameter(torch.ones(1))
    carry = Carry(lambda lanes: start.expand(lanes))
    state = carry.begin(NONE)
    assert state.requires_grad
    carry.end(state * 2)
    assert not carry.state().requires_grad
    assert not carry.begin(NONE).requires_grad
    carry.end(carry.state())
    begun = carry.begin(torch.tensor([True, False, False]))
    assert torch.autograd.grad(begun.sum(), start)[0].item() == 1


def test_as_many_lanes_as_starts_has():
    carry = Carry(counting)
    carry.begin(NONE)
    carry.end(torch.ones(3, 1))
    assert len(carry.begin(torch.ones(5, dtype=torch.bool))) == 5  # all begin anew
    carry.end(torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"one value for each of the state's 5 lanes.*never padded.*Got shape \(3,\)"):
        carry.begin(NONE)


def test_each_stage_has_a_state_of_its_own():
    carry = Carry(counting)
    for number, stage in enumerate(STAGES):
        assert carry.begin(NONE, stage).tolist() == [[10]] * 3
        carry.end(torch.full((3, 1), float(number)))
    assert [carry.begin(NONE, stage)[0].item() for stage in STAGES] == [0, 1, 2, 3, 4]
    carry.forget("validation")
    assert carry.state("validation") is None
    assert carry.state("test") is not None
    with pytest.raises(ValueError, match=r"`stage` must be one of training, .*Got 'trainig' .did you mean 'training'"):
        carry.begin(NONE, "trainig")


@pytest.mark.parametrize("package", [pl, lightning.pytorch])
def test_lightnings_own_words_for_the_stages(package):
    words = [str(stage.value) for stage in package.trainer.states.RunningStage]
    carry, stages = Carry(counting), package.trainer.states.RunningStage
    for word, stage in zip(words, stages, strict=True):
        carry.begin(NONE, stage)
        carry.end(torch.ones(3, 1))
        assert carry.state(word) is not None
    assert all(carry.state(stage) is not None for stage in STAGES)


def test_a_state_that_is_never_ended_is_noticed():
    carry = Carry(counting)
    carry.begin(NONE)
    carry.begin(NONE, "validation")  # another stage in between is no fault
    carry.end(torch.ones(3, 1))
    carry.begin(NONE)
    with pytest.warns(CarryWarning, match="A batch of the training was begun but not ended"):
        carry.begin(NONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        carry.end(torch.ones(3, 1))
        carry.begin(NONE)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: Carry(counting(3)), "`initial_state` must be a function.*Got Tensor; hand over `model"),
        (lambda: Carry(counting).end(torch.ones(3, 1)), "`end` before any `begin`"),
        (lambda: Carry(counting).begin(torch.tensor([1, 0])), "`starts` must be bool"),
        (lambda: Carry(counting).begin(torch.tensor([[True]])), r"`starts` must have one axis, \(lanes,\)"),
        (lambda: Carry(counting).begin([True, False]), "`starts` must be a tensor of bool.*Got list"),
        (lambda: ended(object()), "`state` must be a tensor, or tuples, lists and dicts.*Got object"),
        (lambda: ended(torch.ones(3), cursor=-1), "`cursor` must be the number of the batch"),
        (lambda: ended(torch.ones(3), cursor=True), "`cursor` must be the number of the batch"),
        (lambda: ended(torch.ones(3), stage="test", cursor=1), "`cursor` must be.*Got 1 in test"),
        (lambda: ended_twice(torch.ones(3)), r"`state` must have 2 axes in state, as.*Got shape \(3,\)"),
        (lambda: ended_twice([torch.ones(3, 1)] * 2), "`state` must be nested as `initial_state`'s. Got 2 fields"),
        (lambda: ended_twice(None), "`state` must have 2 axes.*Got NoneType"),
        (lambda: named({"other": torch.ones(3, 1)}), r"`state` must be nested as .*state\['h'\]. Got state\['other'\]"),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence(use, words):
    with pytest.raises(ValueError, match=words):
        use()


def ended(state, stage="training", cursor=None):
    carry = Carry(counting)
    carry.begin(NONE, stage)
    carry.end(state, cursor=cursor)
    return carry


def named(state):
    carry = Carry(lambda lanes: {"h": torch.zeros(lanes, 1)})
    carry.begin(NONE)
    carry.end(state)


def ended_twice(state):
    return ended(state).begin(NONE)


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_checkpoint_brings_state_cursor_and_random_state_back():
    """The random state returns with the first batch of the training, and not with a validation before it."""
    carry = Carry(lambda lanes: {"a": torch.zeros(lanes, 2), "b": (None, 4)})
    carry.begin(NONE)
    carry.end({"a": torch.arange(6.0).view(3, 2), "b": (None, 5)}, cursor=7)
    file = io.BytesIO()
    torch.save(carry.state_dict(), file)
    expected = draws()
    file.seek(0)
    again = Carry(lambda lanes: {"a": torch.rand(lanes, 2), "b": (None, 4)})
    before = draws(), torch.get_rng_state()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(torch.get_rng_state(), before[1])
    assert again.cursor == 7
    assert again.state()["a"].tolist() == [[0, 1], [2, 3], [4, 5]]
    again.begin(ALL, "validation")
    again.end({"a": torch.zeros(3, 2), "b": (None, 0)})
    draws()
    state = again.begin(NONE)
    assert draws() == expected
    assert state["a"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert state["b"] == (None, 5)


def test_a_random_state_of_an_earlier_version_is_read():
    """Its checkpoints hold the 625 numbers of Python's generator one by one."""
    version, words, normal = random_state()["python"]
    saved = {**random_state(), "python": (version, tuple(words.tolist()), normal)}
    expected = draws()
    restore_random_state(saved)
    assert draws() == expected


def test_a_checkpoint_of_a_checkpoint():
    """Saved again before a batch was begun, it holds what was loaded, the random state too."""
    carry = ended(torch.arange(3.0)[:, None], cursor=3)
    saved = copy.deepcopy(carry.state_dict())
    expected = draws()
    again = Carry(counting)
    again.load_state_dict(saved)
    draws()
    last = Carry(counting)
    last.load_state_dict(again.state_dict())
    assert last.begin(NONE).flatten().tolist() == [0, 1, 2]
    assert draws() == expected


def test_checkpoints_that_do_not_fit_are_refused():
    saved = ended(torch.ones(3, 1)).state_dict()
    with pytest.raises(ValueError, match=r"`carry` of the checkpoint must be a state of this model, float32 \(3, 2\)"):
        Carry(lambda lanes: torch.zeros(lanes, 2)).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"Got float32 \(3, 1\)"):
        Carry(lambda lanes: (torch.zeros(lanes, 1), torch.zeros(lanes, 1))).load_state_dict(saved)
    for wrong, got in (({}, "a dict with nothing"), ({"cursor": 1}, "a dict with cursor"), (None, "NoneType")):
        with pytest.raises(ValueError, match=f"`state_dict` must be what .* of a Carry gave. Got {got}"):
            Carry(counting).load_state_dict(wrong)


def test_a_checkpoint_of_other_ranks_is_for_tests_alone():
    """A model that two processes trained is tested by one; to train on is refused."""
    saved = ended(torch.ones(3, 1)).state_dict()
    carry = Carry(counting)
    carry.load_state_dict({**saved, "ranks": saved["ranks"] * 2})
    assert carry.begin(NONE, "test").tolist() == [[10]] * 3
    carry.end(torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"`devices` must be as when the checkpoint was written.*Got 1, and .* of 2"):
        carry.begin(NONE)
    carry.forget()
    assert carry.begin(NONE).tolist() == [[10]] * 3  # another training, with these weights


def test_numbers_of_numpy_and_cursors_of_loaders():
    carry = Carry(lambda lanes: (torch.zeros(lanes, 1), np.int64(3)))
    carry.begin(NONE)
    carry.end((torch.ones(3, 1), np.int64(4)), cursor=torch.tensor(5))
    file = io.BytesIO()
    torch.save(carry.state_dict(), file)
    file.seek(0)
    again = Carry(lambda lanes: (torch.zeros(lanes, 1), 3))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.begin(NONE)[1] == 4
    assert again.cursor == 5


def test_a_validation_that_is_taken_for_a_training_is_noticed():
    carry = Carry(counting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():  # nothing but inference is no fault
            carry.begin(NONE)
            carry.end(torch.ones(3, 1))
        carry.begin(NONE)
        carry.end(torch.ones(3, 1))
        with torch.no_grad():
            carry.begin(NONE, "validation")
            carry.end(torch.ones(3, 1))
    with torch.no_grad(), pytest.warns(CarryWarning, match="where no gradient is recorded"):
        carry.begin(NONE)


def test_a_cache_that_grows_is_carried_saved_and_reset_whole():
    carry = Carry(lambda lanes: torch.zeros(lanes, 2, 0, 4))
    carry.begin(NONE)
    carry.end(torch.ones(3, 2, 5, 4))
    again = Carry(lambda lanes: torch.zeros(lanes, 2, 0, 4))
    again.load_state_dict(carry.state_dict())
    assert again.begin(NONE).shape == (3, 2, 5, 4)
    again.end(again.state())
    assert again.begin(ALL).shape == (3, 2, 0, 4)
    again.end(torch.ones(3, 2, 5, 4))
    with pytest.raises(ValueError, match="`starts` must reset all lanes or none: state has grown"):
        again.begin(torch.tensor([True, False, False]))


class Net(nn.Module):
    """Floats in, a float out."""

    def __init__(self):
        super().__init__()
        self.core, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 1)

    def initial_state(self, lanes):
        return torch.zeros(1, lanes, 4)

    def forward(self, inputs, state):
        output, state = self.core(inputs, state)
        return self.head(output), state


@pytest.mark.parametrize("package", [pl, lightning.pytorch])
def test_in_a_module_of_ones_own_no_stage_sees_anothers_state(package):
    """Sanity check, validations and a test in between: the training is as without them."""
    torch.manual_seed(4)
    batches = [(torch.zeros(3, dtype=torch.bool), torch.randn(3, 5, 2), torch.randn(3, 5, 1)) for _ in range(8)]

    class Own(package.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = Net()
            self.carry = Carry(self.net.initial_state)

        def step(self, batch):
            starts, inputs, targets = batch
            outputs, state = self.net(inputs, self.carry.begin(starts, self.trainer.state.stage))
            self.carry.end(state)
            return nn.functional.mse_loss(outputs, targets)

        def training_step(self, batch, batch_idx):
            return self.step(batch)

        def validation_step(self, batch, batch_idx):
            self.step(batch)

        def test_step(self, batch, batch_idx):
            self.step(batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def trained(**options):
        loader = torch.utils.data.DataLoader(batches, batch_size=None)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = package.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet, **options)
        module = Own()
        with quiet_lightning():
            trainer.fit(module, loader, loader if options else None)
            if options:
                trainer.test(module, loader, verbose=False)
        return module

    alone, together = trained(), trained(val_check_interval=2, num_sanity_val_steps=2)
    for one, two in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(alone.carry.state(), together.carry.state())
    assert together.carry.state("validation") is not None
    assert together.carry.state("sanity_check") is not None
    assert together.carry.state("test") is not None
