"""The audit beside modules as other people write them: states kept by hand, right and wrong."""

import copy
import io

import pytest
import pytorch_lightning as pl
import torch
from support.foreign import (
    LOST,
    RIGHT,
    ROWS,
    STATES,
    STEPS,
    WIDTH,
    Own,
    batch_at,
    fit,
    loader,
    no_hooks_are_left,
    stamps,
)
from support.trainers import quiet_trainer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError
from echo_torch.lab.console import quiet_lightning


class TwoAttributes(Own):
    def __init__(self):
        super().__init__()
        self.h = self.c = None

    def read(self, batch):
        output, (h, c) = self.core(batch["x"], None if self.h is None else (self.h, self.c))
        self.h, self.c = h.detach(), c.detach()
        return output


class TimeMajor(Own):
    def __init__(self):
        super().__init__()
        self.core = nn.GRU(1, WIDTH)

    def read(self, batch):
        output, state = self.core(batch["x"].transpose(0, 1), hx=self.hidden)
        self.hidden = state.data
        return output


class Packed(Own):
    def read(self, batch):
        lengths = torch.tensor([STEPS, STEPS - 1, STEPS])
        packed = pack_padded_sequence(batch["x"], lengths, batch_first=True, enforce_sorted=False)
        output, state = self.core(packed, self.hidden)
        self.hidden = tuple(field.detach().clone() for field in state)
        return output.data


class CellLoop(Own):
    def __init__(self):
        super().__init__()
        self.core = nn.LSTMCell(1, WIDTH)

    def read(self, batch):
        state, outputs = self.hidden, []
        for x in batch["x"].unbind(1):
            state = self.core(x, state)
            outputs.append(state[0])
        self.hidden = tuple(field.detach() for field in state)
        return torch.stack(outputs, 1)


class TwoLayers(Own):
    """An encoder that reads each batch anew, and a layer behind it that carries its state."""

    def __init__(self):
        super().__init__()
        self.encoder, self.core = (
            nn.GRU(1, 2, batch_first=True, bidirectional=True),
            nn.LSTM(4, WIDTH, batch_first=True),
        )

    def read(self, batch):
        return super().read({"x": self.encoder(batch["x"])[0]})


class Buffer(Own):
    """Written in place into tensors of its own."""

    def __init__(self):
        super().__init__()
        self.core = nn.GRU(1, WIDTH, batch_first=True)
        self.hidden = torch.zeros(1, ROWS, WIDTH)

    def read(self, batch):
        output, state = self.core(batch["x"], self.hidden.clone())
        self.hidden.copy_(state.detach())
        return output


KINDS = [Own, TwoAttributes, TimeMajor, Packed, CellLoop, TwoLayers, Buffer]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_carried_by_hand_is_followed(kind):
    if kind is Packed:  # a row that is a step shorter
        given = [batch_at(start) for start in (0, 4, 8)]
        for number, batch in enumerate(given):
            shorter = torch.tensor([3 * number, 3 * number + 1, 3 * number + 2, -1])
            batch["at"] = torch.stack([batch["at"][0], shorter, batch["at"][0]])
        wrong = [given[0], given[2]]
    else:
        given, wrong = RIGHT, LOST
    audit = fit(kind(), given)
    assert audit.gaps == {0: ROWS * (len(given) - 1)}
    assert audit.notes == []
    with pytest.raises(StateError, match=r"state ends at step . of .* steps are skipped \(3 of 3 lanes\)"):
        fit(kind(), wrong)
    assert no_hooks_are_left()


def test_a_fault_is_raised_before_the_step_computes_on():
    class Watched(Own):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            reached.append(batch_idx)
            return loss

    reached = []
    with pytest.raises(StateError, match="4 steps are skipped"):
        fit(Watched(), LOST)
    assert reached == [0, 1]


class ResetAtEpoch(Own):
    def on_train_epoch_start(self):
        self.hidden = None


class ResetInStep(Own):
    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.hidden = None
        return super().training_step(batch, batch_idx)


class ZeroedInPlace(Buffer):
    def on_train_epoch_start(self):
        self.hidden.zero_()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [ResetAtEpoch, ResetInStep, ZeroedInPlace])
def test_a_reset_at_the_epochs_start_is_none_of_its_faults(kind, state):
    audit = fit(kind(), epochs=3, state=STATES[state])
    assert audit.gaps == {0: 3 * 3 * ROWS}
    assert (audit.num_faults, audit.notes) == (0, [])


@pytest.mark.parametrize("state", STATES)
def test_a_state_carried_into_the_next_pass_is_a_fault(state):
    with pytest.raises(StateError, match="first of a new pass of the loader, begins at step 0: 16 steps"):
        fit(Own(), epochs=2, state=STATES[state])
    audit = fit(Own(), policy="count", epochs=3, state=STATES[state])
    assert audit.gaps == {0: 3 * 3 * ROWS, -16: 2 * ROWS}


def test_lanes_set_to_zero_by_hand_begin_and_the_others_go_on():
    """A mask within the step, one lane after the other; the sequences go on in the others."""

    class Masked(Own):
        def read(self, batch):
            if self.hidden is not None:
                keep = (~batch["done"]).float().view(1, -1, 1)
                self.hidden = tuple(field * keep for field in self.hidden)
            return super().read(batch)

    def given(at, done):
        step = torch.tensor(at)[:, None] + torch.arange(STEPS)
        return {**batch_at(0), "at": step, "done": torch.tensor(done)}

    right = [given([0, 0, 0], [0, 0, 0]), given([4, 0, 4], [0, 1, 0]), given([0, 4, 8], [1, 0, 0])]
    right = [{**batch, "done": batch["done"].bool()} for batch in right]
    assert fit(Masked(), right).gaps == {0: 4}
    assert fit(Masked(), right, state=STATES["shown"]).gaps == {0: 4}
    right[2]["done"][0] = False
    with pytest.raises(StateError, match=r"Lane 0's carried state ends at step 7 .* at step 0: 8 steps are read"):
        fit(Masked(), right)


def test_a_tuple_made_anew_at_each_look_is_the_same_state():
    audit = fit(TwoAttributes(), state=lambda module: (module.h, module.c) if module.h is not None else None)
    assert audit.gaps == {0: 3 * ROWS}


def test_chunks_of_any_length_accumulated_gradients():
    given, start = [], 0
    for steps in (3, 1, 5, 2, 4):
        given.append(batch_at(start, steps=steps))
        start += steps
    assert fit(Own(), given, accumulate_grad_batches=2).gaps == {0: 4 * ROWS}


def test_two_optimisers_and_a_layer_that_reads_several_things():
    """The carried call comes first, a second call reads noise without a state."""

    class Adversarial(Own):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.judge = nn.GRU(WIDTH, 1, batch_first=True)

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                hidden = self.hidden
                output = self.read(batch)
                after, self.hidden = self.hidden, hidden
                self.judge(self.core(torch.randn(ROWS, 2, 1))[0])
                optimizer.zero_grad()
                self.manual_backward(self.judge(output)[0].square().mean())
                optimizer.step()
            self.hidden = after

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.core, self.judge)]

    assert fit(Adversarial()).gaps == {0: 3 * ROWS}
    with pytest.raises(StateError, match="4 steps are skipped"):
        fit(Adversarial(), LOST)


def test_a_module_is_copied_and_saved_while_it_trains():
    """Nothing of the audit is in it: what is loaded elsewhere needs no audit."""

    class Copying(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            torch.save(pl_module.core, file := io.BytesIO())
            file.seek(0)
            copies.extend([copy.deepcopy(pl_module), torch.load(file, weights_only=False)])

    copies, audit = [], StateAudit("raise", stamps=stamps)
    with quiet_lightning():
        quiet_trainer(max_epochs=1, callbacks=[Copying(), audit], log_every_n_steps=1).fit(Own(), loader(RIGHT))
    assert len(copies) == 8
    assert not any(part._forward_hooks or part._forward_pre_hooks for one in copies for part in one.modules())
    assert no_hooks_are_left()


def test_the_hooks_are_gone_after_any_exception():
    class Failing(Own):
        def training_step(self, batch, batch_idx):
            raise ArithmeticError("own")

    with pytest.raises(ArithmeticError, match="own"):
        fit(Failing())
    assert no_hooks_are_left()


def test_the_callers_random_state_is_left_alone():
    def weights(audited):
        module = Own()
        torch.manual_seed(3)
        module.core.dropout = 0.0
        given = audited and {"audit": StateAudit("raise", stamps=stamps)}
        if given:
            fit(module, **given)
        else:
            with quiet_lightning():
                quiet_trainer(max_epochs=1, log_every_n_steps=1).fit(module, loader(RIGHT))
        return [*module.parameters(), torch.rand(3)]

    for one, two in zip(weights(True), weights(False), strict=True):
        assert torch.equal(one, two)
