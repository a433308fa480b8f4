"""The audit beside modules as other people write them."""

import copy
import io
import warnings

import pytest
import pytorch_lightning as pl
import torch
from support.trainers import quiet_trainer
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils.rnn import pack_padded_sequence

from echo_torch import Stamps
from echo_torch.diagnosis.audit import StateAudit
from echo_torch.diagnosis.gaps import StateError, StateNote, StateWarning
from echo_torch.lab.console import quiet_lightning

ROWS, STEPS, WIDTH = 3, 4, 5


class Own(pl.LightningModule):
    """An LSTM whose state is kept in `self.hidden`, a tuple, detached by hand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.core = nn.LSTM(1, WIDTH, batch_first=True)
        self.hidden = None

    def read(self, batch):
        output, state = self.core(batch["x"], self.hidden)
        self.hidden = tuple(field.detach() for field in state)
        return output

    def training_step(self, batch, batch_idx):
        return self.read(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batch_at(start, rows=ROWS, steps=STEPS, **more):
    generator = torch.Generator().manual_seed(start + 1)
    at = (start + torch.arange(steps)).expand(rows, steps)
    return {"x": torch.randn(rows, steps, 1, generator=generator), "at": at, **more}


def batches(*starts):
    return [batch_at(start) for start in starts]


RIGHT = batches(0, 4, 8, 12)
LOST = batches(0, 4, 12, 16)  # one batch is missing


def stamps(batch):
    return Stamps(step=batch["at"])


def loader(given):
    return torch.utils.data.DataLoader(given, batch_size=None)


def fit(module, given=RIGHT, policy="raise", *, validation=None, epochs=1, audit=None, **options):
    """The audit of a training in which no warning is allowed but those that the test expects."""
    state = options.pop("state", None)
    more = {} if state is None else {"state": state}
    audit = audit or StateAudit(policy, stamps=stamps, **more)
    options = {"num_sanity_val_steps": 0, "log_every_n_steps": 1, **options}
    loaders = [loader(given)] + ([] if validation is None else [loader(validation)])
    with quiet_lightning():
        quiet_trainer(max_epochs=epochs, callbacks=[audit], **options).fit(module, *loaders)
    return audit


def no_hooks_are_left():
    return not torch_modules._global_forward_hooks and not torch_modules._global_forward_pre_hooks


# --- states as people keep them: each is followed, right and wrong --------------------------------------------------


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
            batch["at"] = torch.stack(
                [batch["at"][0], torch.tensor([3 * number, 3 * number + 1, 3 * number + 2, -1])] + [batch["at"][0]]
            )
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


# --- lanes that begin without a state --------------------------------------------------------------------------


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


STATES = {"unseen": None, "shown": lambda module: module.hidden}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [ResetAtEpoch, ResetInStep, ZeroedInPlace])
def test_a_reset_at_the_epochs_start_is_none_of_its_faults(kind, state):
    audit = fit(kind(), epochs=3, state=STATES[state])
    assert audit.gaps == {0: 3 * 3 * ROWS}
    assert (audit.num_faults, audit.notes) == (0, [])


@pytest.mark.parametrize("state", STATES)
def test_a_state_carried_into_the_next_pass_is_a_fault(state):
    with pytest.raises(
        StateError, match="first of a new pass of the loader, begins at step 0: 16 steps are read twice"
    ):
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
    with pytest.raises(
        StateError, match=r"Lane 0's carried state ends at step 7 .* begins at step 0: 8 steps are read"
    ):
        fit(Masked(), right)


def test_a_tuple_made_anew_at_each_look_is_the_same_state():
    audit = fit(TwoAttributes(), state=lambda module: (module.h, module.c) if module.h is not None else None)
    assert audit.gaps == {0: 3 * ROWS}


# --- silent cases get a voice -----------------------------------------------------------------------------------


class Windows(Own):
    """Truncated backpropagation by hand: each step reads whole texts, cut into windows."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        state = None
        for window in batch["x"].split(2, dim=1):
            output, state = self.core(window, state)
            state = tuple(field.detach() for field in state)
            self.optimizers().zero_grad()
            self.manual_backward(output.square().mean())
            self.optimizers().step()


class LearnedFirstState(Own):
    def __init__(self):
        super().__init__()
        self.core = nn.GRU(1, WIDTH, batch_first=True)
        self.first = nn.Parameter(torch.ones(1, 1, WIDTH))

    def read(self, batch):
        return self.core(batch["x"], self.first.expand(1, ROWS, WIDTH).contiguous())[0]


class Translator(Own):
    """The decoder begins with what the encoder has left, in each batch anew."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(1, WIDTH, batch_first=True)

    def read(self, batch):
        return self.core(batch["x"], self.encoder(batch["x"])[1])[0]


@pytest.mark.parametrize("kind", [Windows, LearnedFirstState, Translator])
def test_a_training_that_carries_no_state_is_told_so_once(kind):
    texts = batches(0, 0, 0, 0, 0)
    for policy in ("warn", "raise"):
        with pytest.warns(StateNote, match="No state is carried: none of the 3 batches so far") as caught:
            audit = fit(kind(), texts, policy)
        assert len([warning for warning in caught if issubclass(warning.category, StateNote)]) == 1
        assert audit.num_faults == 0
        assert len(audit.notes) == 1
    with pytest.warns(StateNote, match="none of the 2 batches so far"):
        fit(kind(), texts[:2])
    silent = fit(kind(), texts, "count")
    assert len(silent.notes) == 1
    assert fit(kind(), texts[:1]).notes == []


def test_where_the_stamps_say_that_each_batch_starts_nothing_is_said():
    audit = StateAudit("raise", stamps=lambda batch: Stamps(batch["at"], starts=torch.ones(ROWS, dtype=torch.bool)))
    assert fit(Windows(), batches(0, 0, 0, 0), audit=audit).notes == []


class OwnCells(Own):
    """A recurrence that no layer of torch.nn computes."""

    def __init__(self):
        super().__init__()
        self.core = nn.Linear(1 + WIDTH, WIDTH)

    def read(self, batch):
        state = torch.zeros(ROWS, WIDTH) if self.hidden is None else self.hidden
        for x in batch["x"].unbind(1):
            state = self.core(torch.cat([x, state], dim=1)).tanh()
        self.hidden = state.detach()
        return state


def test_a_state_that_cannot_be_seen_is_told_so_once():
    with pytest.warns(StateNote, match=r"cannot be seen.*StateAudit\(state=lambda module: module.hidden\)") as caught:
        audit = fit(OwnCells(), epochs=2)
    assert len([warning for warning in caught if warning.category is StateNote]) == 1
    assert audit.gaps == {0: 2 * 3 * ROWS}  # the border between two passes is left out
    assert audit.num_faults == 0
    with pytest.warns(StateNote), pytest.raises(StateError, match="4 steps are skipped"):
        fit(OwnCells(), LOST)
    assert fit(OwnCells(), state=STATES["shown"]).notes == []
    with pytest.raises(StateError, match="new pass of the loader"):
        fit(OwnCells(), epochs=2, state=STATES["shown"])


def test_a_state_that_is_neither_empty_nor_what_was_left_is_told_so_once():
    class Drawn(Own):
        def read(self, batch):
            return self.core(batch["x"], (torch.randn(1, ROWS, WIDTH), torch.randn(1, ROWS, WIDTH)))[0]

    with pytest.warns(StateNote, match="it is unknown whether it is carried") as caught:
        audit = fit(Drawn(), LOST)
    assert len([warning for warning in caught if warning.category is StateNote]) == 1
    assert audit.gaps == {}


def test_a_state_that_is_changed_on_its_way_is_followed_where_it_is_shown():
    class Fading(Own):
        def read(self, batch):
            if self.hidden is not None:
                self.hidden = tuple(field * 0.9 for field in self.hidden)
            return super().read(batch)

    assert fit(Fading(), state=STATES["shown"]).gaps == {0: 3 * ROWS}
    with pytest.raises(StateError, match="4 steps are skipped"):
        fit(Fading(), LOST, state=STATES["shown"])


# --- who else writes the state ----------------------------------------------------------------------------------


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


# --- healthy trainings -------------------------------------------------------------------------------------------


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


# --- what is said ---------------------------------------------------------------------------------------------


def test_one_warning_for_all_sizes_of_gaps():
    given = batches(*(4 * number for number in torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()))
    with pytest.warns(StateWarning, match="steps are") as caught:
        audit = fit(Own(), given, "warn")
    assert len(caught) == 1
    assert len(audit.gaps) > 20
    assert audit.num_faults == sum(number for gap, number in audit.gaps.items() if gap)


def test_gaps_and_other_sequences_have_a_warning_each():
    def named(batch):
        return Stamps(batch["at"], sequence=torch.tensor([0, batch["other"], 0]))

    given = [batch_at(4 * number, other=other) for number, other in ((0, 0), (2, 1), (3, 0), (5, 1))]
    with pytest.warns(StateWarning) as caught:
        audit = fit(Own(), given, audit=StateAudit("warn", stamps=named))
    assert ["another sequence" in str(warning.message) for warning in caught] == [False, True]
    assert audit.gaps == {4: 4, "other": 3, 0: 2}


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (
            [torch.zeros(3, 5), torch.zeros(3)],
            r"a list of 2 tensors; .*`StateAudit\(stamps=lambda batch: Stamps\(step=batch\[0\]\)\)`",
        ),
        ({"x$": torch.zeros(3, 5)}, r'a dict with x\$; .*Stamps\(step=batch\["position"\]\)'),
        (torch.zeros(3, 5), r"a tensor of shape \(3, 5\); .*Stamps\(step=batch\[0\]\)"),
    ],
)
def test_a_batch_without_stamps_is_told_what_is_missing(batch, line):
    with pytest.raises(ValueError, match=f"`stamps` must say where the rows of each batch stand.* Got {line}"):
        fit(Own(), [batch], audit=StateAudit())


def test_an_error_of_ones_own_stamps_is_ones_own():
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="place"):
        fit(Own(), audit=StateAudit(stamps=lambda batch: batch.place))
