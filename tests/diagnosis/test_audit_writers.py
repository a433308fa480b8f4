"""Who else writes the state of a module of somebody's own: a validation, the sanity check, a checkpoint."""

import pytest
import torch
from support.foreign import (
    RIGHT,
    ROWS,
    STATES,
    WIDTH,
    Own,
    OwnCells,
    batch_at,
    batches,
    fit,
    loader,
    no_hooks_are_left,
    stamps,
)
from support.trainers import quiet_trainer

from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError
from echo_torch.lab.console import quiet_lightning
from echo_torch.training import Carry


class Leaking(Own):
    def validation_step(self, batch, batch_idx):
        self.read(batch)


class Restoring(Own):
    """Its validation saves the state, and copies it back in place."""

    def validation_step(self, batch, batch_idx):
        if self.hidden is None:
            self.core(batch["x"])
            return
        kept = [field.clone() for field in self.hidden]
        for field, other in zip(self.hidden, self.core(batch["x"], self.hidden)[1], strict=True):
            field.copy_(other)
        for field, old in zip(self.hidden, kept, strict=True):
            field.copy_(old)


VALIDATING = {"validation": batches(0, 4), "val_check_interval": 2, "inference_mode": False}


@pytest.mark.parametrize("state", STATES)
def test_a_validation_that_writes_the_state_is_a_fault(state):
    audit = fit(Leaking(), policy="count", state=STATES[state], **VALIDATING)
    assert audit.num_faults == 1
    with pytest.raises(StateError, match="such as a validation on the same state"):
        fit(Leaking(), state=STATES[state], **VALIDATING)
    assert no_hooks_are_left()
    fit(Restoring(), state=STATES[state], **VALIDATING)


def test_a_validation_with_other_lanes_that_writes_the_state():
    class Short(Leaking):
        def validation_step(self, batch, batch_idx):
            self.hidden = self.core(batch["x"])[1]

        def on_train_batch_start(self, batch, batch_idx):
            if self.hidden is not None:
                self.hidden = tuple(field[:, :ROWS].clone() for field in self.hidden)

    other = {**VALIDATING, "validation": [batch_at(0, rows=ROWS + 2)]}
    with pytest.raises(StateError, match="such as a validation on the same state"):
        fit(Short(), **other)


def test_a_reset_after_the_validation_is_none_of_its_faults():
    class Resetting(Leaking):
        def on_train_epoch_start(self):
            self.hidden = None

        def on_validation_end(self):
            self.hidden = None

    audit = fit(Resetting(), [*RIGHT[:2], *RIGHT[:2]], epochs=2, num_sanity_val_steps=1, **VALIDATING)
    assert audit.num_faults == 0


class LeakingCarry(Leaking):
    @property
    def carry(self):
        return self.hidden


@pytest.mark.parametrize("kind", [Leaking, LeakingCarry])
def test_a_state_of_the_sanity_check_is_a_fault(kind):
    def run(module, **options):
        return fit(module, policy="raise", validation=RIGHT[:1], limit_val_batches=1, num_sanity_val_steps=1,
                   check_val_every_n_epoch=9, **options)  # fmt: skip

    with pytest.raises(StateError, match="the one that the sanity check left"):
        run(kind())

    class Forgetting(kind):
        def training_step(self, batch, batch_idx):
            if batch_idx == 0:
                self.hidden = None
            return super().training_step(batch, batch_idx)

    class Untouched(kind):
        """It begins with a state of its own, and its validation leaves it alone."""

        def __init__(self):
            super().__init__()
            self.hidden = (torch.ones(1, ROWS, WIDTH), torch.ones(1, ROWS, WIDTH))

        def validation_step(self, batch, batch_idx):
            self.core(batch["x"])

    run(Forgetting())
    run(Untouched())


class Saving(Own):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["hidden"] = self.hidden

    def on_load_checkpoint(self, checkpoint):
        self.hidden = checkpoint["hidden"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [Saving, Own])
def test_a_training_that_goes_on_from_a_checkpoint(kind, state, tmp_path):
    """With its state restored it goes on, right or wrong; without it, it begins."""

    def run(given, policy="raise", start=None, epochs=1):
        more = {} if STATES[state] is None else {"state": STATES[state]}
        audit = StateAudit(policy, stamps=stamps, **more)
        trainer = quiet_trainer(max_epochs=epochs, callbacks=[audit], log_every_n_steps=1, num_sanity_val_steps=1,
                                limit_val_batches=1)  # fmt: skip
        with quiet_lightning():
            trainer.fit(kind(), loader(given), ckpt_path=start, **({} if start is None else {"weights_only": False}))
        return trainer, audit

    trainer, _ = run(RIGHT[:2])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, audit = run(RIGHT[2:], start=tmp_path / "half.ckpt", epochs=2)
    handed = kind is Saving
    assert audit.gaps == {0: (2 + handed) * ROWS}
    assert audit.num_faults == 0
    _, audit = run(batches(12, 16), "count", start=tmp_path / "half.ckpt", epochs=2)
    assert audit.gaps == ({0: 2 * ROWS, 4: ROWS} if handed else {0: 2 * ROWS})


def test_a_validation_that_writes_into_the_tensors_themselves():
    class Overwriting(Own):
        def validation_step(self, batch, batch_idx):
            for field, other in zip(self.hidden, self.core(batch["x"], self.hidden)[1], strict=True):
                field.copy_(other)

    with pytest.raises(StateError, match="such as a validation on the same state"):
        fit(Overwriting(), **VALIDATING)


def test_a_state_of_the_sanity_check_that_no_layer_shows():
    """Only the state itself can tell, before and after."""

    class Writing(OwnCells):
        def validation_step(self, batch, batch_idx):
            self.read(batch)

    class Reading(OwnCells):
        def __init__(self):
            super().__init__()
            self.hidden = torch.ones(ROWS, WIDTH)

        def validation_step(self, batch, batch_idx):
            pass

    options = {"validation": RIGHT[:1], "num_sanity_val_steps": 1, "check_val_every_n_epoch": 9}
    with pytest.raises(StateError, match="the one that the sanity check left"):
        fit(Writing(), state=STATES["shown"], **options)
    assert fit(Reading(), state=STATES["shown"], **options).gaps == {0: 3 * ROWS}


def test_a_memory_beside_a_layer_that_begins_anew_goes_on():
    """The layer's empty state says nothing of a state that is not its own."""

    class Remembering(OwnCells):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.GRU(1, 1, batch_first=True)

        def read(self, batch):
            return super().read({"x": self.encoder(batch["x"])[0]})

    assert fit(Remembering(), state=STATES["shown"]).gaps == {0: 3 * ROWS}
    with pytest.raises(StateError, match="4 steps are skipped"):
        fit(Remembering(), [RIGHT[0], RIGHT[2]], state=STATES["shown"])


def test_a_carry_whose_values_are_written_and_copied_back():
    class Carrying(Own):
        def __init__(self):
            super().__init__()
            self.carry = Carry(lambda lanes: (torch.zeros(1, lanes, WIDTH), torch.zeros(1, lanes, WIDTH)))

        def read(self, batch):
            output, state = self.core(batch["x"], self.carry.begin(torch.zeros(ROWS, dtype=torch.bool)))
            self.carry.end(state)
            return output

        def validation_step(self, batch, batch_idx):
            kept = [field.clone() for field in self.carry.state()]
            for field, old in zip(self.carry.state(), kept, strict=True):
                field.add_(1)
                field.copy_(old)

    assert fit(Carrying(), **VALIDATING).num_faults == 0
