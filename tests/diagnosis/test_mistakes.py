"""Mistakes made to this project's own chunks, training and model: reach and the audit must say the same of them.

Those that people make in code of their own are in test_gallery.py.
"""

import itertools

import pytest
import torch
from support.trainers import quiet_trainer
from test_audit import train_on
from torch import nn

from echo_torch import EchoLSTM, EchoModule, LSTMState, configure
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError
from echo_torch.diagnosis.data_path.reaching import OTHER, reach
from echo_torch.diagnosis.probing.probes import probe
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_module


def correct_chunks(number=12, **options):
    return list(itertools.islice(Plan(configure("aligned", lanes=4, **options)).training(), number))


def make_model(**options):
    torch.manual_seed(0)
    return EchoLSTM(9, 6, **options)


def audit_of(chunks):
    return train_on(chunks, StateAudit("count"))


# --- mistakes in the data path: made to a list of chunks -------------------------------------------------------


def consecutive_windows_in_one_batch():
    return list(itertools.islice(Plan(configure("stateful")).training(), 12))


def shuffled_batches():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    chunks = correct_chunks()
    return [chunks[number] for number in order]


def state_never_reset():
    chunks = correct_chunks(reset_every=10)
    return [chunks[0], *(chunk._replace(starts=torch.zeros(4, dtype=torch.bool)) for chunk in chunks[1:])]


def number_of_chunks_taken_for_their_length():
    """60 steps a lane are to make chunks of 5; reshaped to 5 chunks and read across."""
    chunks = correct_chunks()

    def wrong(field):
        whole = torch.cat([getattr(chunk, field) for chunk in chunks], dim=1)
        return whole.view(4, 5, 12).unbind(2)

    fields = {name: wrong(name) for name in ("symbols", "targets", "step")}
    return [chunk._replace(**{name: fields[name][number] for name in fields}) for number, chunk in enumerate(chunks)]


def short_last_batch():
    """The rows without data are left out, and the state is cut or filled up to fit."""
    chunks = correct_chunks()
    cut = {name: getattr(chunks[5], name)[:2] for name in ("symbols", "targets", "starts", "sequence", "step")}
    return [*chunks[:5], chunks[5]._replace(**cut)]


def loader_workers_interleaved():
    """Two workers, each with half of the chunks in one block, read in turn."""
    chunks = correct_chunks()
    return [chunk for pair in zip(chunks[:6], chunks[6:], strict=True) for chunk in pair]


def one_chunk_lost_at_resume():
    chunks = correct_chunks()
    return chunks[:6] + chunks[7:]


def lanes_swapped_between_batches():
    chunks = correct_chunks()
    for number in range(1, len(chunks), 2):
        chunk = chunks[number]
        flipped = {name: getattr(chunk, name).flip(0) for name in ("symbols", "targets", "sequence", "step")}
        chunks[number] = chunk._replace(**flipped)
    return chunks


DATA_FAULTS = {
    # name: (chunks, gaps that reach and audit must both report)
    "consecutive windows in one batch": (consecutive_windows_in_one_batch, {5}),
    "shuffled batches": (shuffled_batches, {5, 10, -10}),
    "state never reset": (state_never_reset, {OTHER}),
    "chunk count mistaken for chunk length": (number_of_chunks_taken_for_their_length, {-48}),
    "loader workers interleaved": (loader_workers_interleaved, {25, -30}),
    "one chunk lost at resume": (one_chunk_lost_at_resume, {5}),
    "lanes swapped between batches": (lanes_swapped_between_batches, {OTHER}),
}


@pytest.mark.parametrize("name", DATA_FAULTS)
def test_mistakes_in_the_data_path(name):
    make, signature = DATA_FAULTS[name]
    chunks = make()
    found = reach(chunks, 1)
    assert signature <= set(found.gaps)
    audit = audit_of(chunks)
    assert signature <= set(audit.gaps)
    assert audit.num_faults >= len(signature)
    with pytest.raises(StateError):
        train_on(chunks, StateAudit("raise"))


def test_state_cut_or_filled_up_for_a_short_batch():
    """This project's model refuses such a state; a module that cuts or pads it is found by the audit."""
    chunks = short_last_batch()

    class Padding(EchoModule):
        def training_step(self, chunk, batch_idx):
            if self.carry is not None:
                self.carry = LSTMState(*(field[:, : len(chunk.symbols)] for field in self.carry))
            return super().training_step(chunk, batch_idx)

    configuration = configure("aligned")
    with pytest.raises(ValueError, match="the state's 4 lanes"), quiet_lightning():
        audit_of(chunks)
    from test_audit import fit

    with pytest.raises(StateError, match="The batch has 2 lanes but the carried state has 4"):
        fit(Padding(Plan(configuration).model()), chunks, StateAudit("raise"))


def test_validation_state_leaks_into_training():
    class Leaking(EchoModule):
        def validation_step(self, chunk, batch_idx):
            self.carry = self.model(chunk.symbols, self.carry)[1]

    def run(module_class, policy):
        configuration = configure("aligned", lanes=4)
        module = module_class(Plan(configuration).model())
        audit = StateAudit(policy)
        loaders = [
            torch.utils.data.DataLoader(correct_chunks(), batch_size=None, collate_fn=lambda chunk: chunk)
            for _ in range(2)
        ]
        with quiet_lightning():
            trainer = quiet_trainer(
                max_epochs=1, callbacks=[audit], val_check_interval=5, num_sanity_val_steps=0,
                limit_val_batches=1, inference_mode=False, log_every_n_steps=1,
            )  # fmt: skip
            trainer.fit(module, *loaders)
        return audit

    class Separate(EchoModule):
        def validation_step(self, chunk, batch_idx):
            self.model(chunk.symbols, self.model.initial_state(4))

    assert run(Leaking, "count").num_faults == 2
    with pytest.raises(StateError, match="something else wrote it in between, such as a validation"):
        run(Leaking, "raise")
    assert run(Separate, "raise").num_faults == 0


# --- the model --------------------------------------------------------------------------------------------------


class WrongBatchFirst(nn.Module):
    """Rows are taken for time; no error, as long as lanes == steps."""

    def __init__(self):
        super().__init__()
        self.right = make_model()
        self.right.lstm.batch_first = False
        self.initial_state = self.right.initial_state

    def forward(self, symbols, state):
        return self.right(symbols, state)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}])
@pytest.mark.parametrize("sizes", [{}, {"num_lanes": 4, "num_steps": 3}, {"num_lanes": 2, "num_steps": 1}])
def test_a_correct_model_has_none(options, sizes):
    found = probe(make_model(**options), 9, **sizes)
    assert found.faults == ()
    assert torch.equal(found.influence, torch.eye(found.influence.shape[1], dtype=torch.bool)[list(found.probed_lanes)])
    assert not found.gradient_crosses


def test_a_model_that_raises_is_said_so():
    found = probe(WrongBatchFirst(), 9, num_lanes=4, num_steps=3)
    assert found.faults == ("failed",)
    assert "RuntimeError" in found.lines()[0]


def test_bad_sizes_of_the_probe():
    for options in ({"vocabulary_size": 1}, {"num_lanes": 1}, {"num_steps": 0}):
        with pytest.raises(ValueError, match="must be at least"):
            probe(make_model(), **{"vocabulary_size": 9, **options})


def test_the_correct_run_raises_none():
    chunks = correct_chunks()
    assert reach(chunks, 1).gap == 0
    assert train_on(chunks, StateAudit("raise")).num_faults == 0
    assert build_module(Plan(configure("lag")), make_model()) is not None
