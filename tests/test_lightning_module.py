import itertools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from echo_torch import (
    Chunk,
    EchoLSTM,
    EchoModule,
    EchoStream,
    RandomSymbols,
    RunDirectory,
    WindowLayout,
    configure,
    frame_windows,
    runner,
    train,
)  # fmt: skip
from echo_torch.encoding import count_asked, loss_sum
from echo_torch.files import UserError
from echo_torch.runner import quiet_lightning


class Rows(DummyLogger):
    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step):
        self.rows[step] = metrics


def make_stream(batch_size=5, lag=1, **options):
    layout = WindowLayout(frame_windows(25, 5, lag, num_dropped=1), 25, batch_size, **options)
    return EchoStream(layout, RandomSymbols(20))


def make_model(seed=0):
    torch.manual_seed(seed)
    return EchoLSTM(20, 8)


def fit(module, loader, max_steps, **options):
    rows = Rows()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"accelerator": "cpu", "log_every_n_steps": 1, **quiet, **options}
    with quiet_lightning():
        trainer = pl.Trainer(max_steps=max_steps, logger=[rows], **options)
        trainer.fit(module, loader)
    return trainer, rows.rows


def loader(*chunks):
    """A loader of given chunks; Lightning takes a bare list for a list of loaders."""
    return torch.utils.data.DataLoader(chunks, batch_size=None, collate_fn=lambda chunk: chunk)


def plain_training(model, chunks):
    """The same training as a plain loop: losses of the updates and the last state."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    state, losses = None, []
    for chunk in chunks:
        if state is None or chunk.starts.all():
            state = model.initial_state(len(chunk.symbols))
        logits, state = model(chunk.symbols, state)
        state = type(state)(*(field.detach() for field in state))
        loss = loss_sum(logits, chunk.targets) / count_asked(chunk.targets).clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, state


@pytest.mark.parametrize(
    ("batch_size", "options"), [(5, {}), (6, {}), (7, {"cut": "sequence"}), (5, {"carry": "reset"})]
)
def test_equals_a_plain_loop(batch_size, options):
    """State carried, detached and reset as the chunks say, short last batches included."""
    stream = make_stream(batch_size, **options)
    expected_model = make_model()
    losses, state = plain_training(expected_model, itertools.islice(stream, 9))
    module = EchoModule(make_model())
    _, rows = fit(module, stream.loader(), 9, log_every_n_steps=1)
    assert [rows[update]["loss"] for update in range(1, 10)] == pytest.approx(losses, abs=1e-6)
    for expected, found in zip(expected_model.parameters(), module.model.parameters(), strict=True):
        assert torch.equal(expected, found)
    for expected, found in zip(state, module.carry, strict=True):
        assert torch.equal(expected, found)
        assert not found.requires_grad


def test_only_the_lanes_that_start_are_reset():
    model = make_model()
    module = EchoModule(model)
    first = next(iter(make_stream()))
    starts = torch.tensor([True, False, False, True, False])
    second = first._replace(starts=starts, index=1)
    fit(module, loader(first, second), 2)
    carried = make_model()
    _, state = plain_training(carried, [first])
    mixed = [field.masked_fill(starts.view(1, 5, 1), 0) for field in state]
    with torch.no_grad():
        _, expected = carried(second.symbols, type(state)(*mixed))
    for one, two in zip(expected, module.carry, strict=True):
        torch.testing.assert_close(one, two)


def test_rows_pool_all_targets_since_the_row_before():
    """One row for each n updates and one for the rest; shorter batches weigh less."""
    stream = make_stream(batch_size=6)  # 20 windows: 6 + 6 + 6 + 2
    _, single = fit(EchoModule(make_model()), stream.loader(), 10, log_every_n_steps=1)
    _, pooled = fit(EchoModule(make_model()), stream.loader(), 10, log_every_n_steps=4)
    assert list(pooled) == [4, 8, 10]
    assert [row["targets"] for row in pooled.values()] == [20, 20, 12]
    for last, row in pooled.items():
        parts = [single[update] for update in range(4 * ((last - 1) // 4) + 1, last + 1)]
        for name in ("loss", "accuracy"):
            mean = sum(part[name] * part["targets"] for part in parts) / sum(part["targets"] for part in parts)
            assert row[name] == pytest.approx(mean, rel=1e-6)


def test_the_last_row_comes_when_the_loader_ends():
    stream = make_stream()
    stream.num_chunks = 6
    _, rows = fit(EchoModule(make_model()), stream.loader(), -1, log_every_n_steps=4, max_epochs=1)
    assert list(rows) == [4, 6]


def test_a_chunk_without_questions_is_an_update_with_loss_zero():
    chunk = next(iter(make_stream()))
    silent = chunk._replace(targets=torch.full_like(chunk.targets, -100))
    module = EchoModule(make_model())
    before = [p.clone() for p in module.parameters()]
    trainer, rows = fit(module, loader(silent), 1, log_every_n_steps=1)
    assert trainer.global_step == 1
    assert rows[1] == {"targets": 0}
    assert all(torch.equal(one, two) for one, two in zip(before, module.parameters(), strict=True))


def test_a_new_training_begins_with_nothing_remembered():
    module = EchoModule(make_model())
    chunk = next(iter(make_stream()))._replace(starts=torch.zeros(5, dtype=torch.bool))
    fit(module, loader(chunk), 1)
    trained = make_model()
    trained.load_state_dict(module.model.state_dict())
    module.learning_rate = 0.0
    fit(module, loader(chunk), 1)
    with torch.no_grad():
        _, expected = trained(chunk.symbols, trained.initial_state(5))
    assert torch.equal(module.carry.hidden, expected.hidden)


def test_weights_know_no_lanes():
    module = EchoModule(make_model())
    fit(module, make_stream(batch_size=3).loader(), 2)
    EchoModule(make_model(1)).load_state_dict(module.state_dict())
    assert not list(module.buffers())


def test_metrics_are_there_for_other_callbacks():
    trainer, rows = fit(EchoModule(make_model()), make_stream().loader(), 4, log_every_n_steps=2)
    assert trainer.callback_metrics["loss"] == pytest.approx(rows[4]["loss"])
    assert trainer.callback_metrics["accuracy"] == pytest.approx(rows[4]["accuracy"])


def test_only_what_is_read_goes_to_the_device():
    chunk = next(iter(make_stream()))
    moved = chunk.to(torch.device("meta"))
    assert isinstance(moved, Chunk)
    assert [field.device.type for field in moved[:5]] == ["meta", "meta", "cpu", "cpu", "cpu"]
    assert chunk.to(torch.device("cpu")) is chunk


@pytest.mark.gpu
def test_trains_on_cuda():
    module = EchoModule(make_model())
    _, rows = fit(module, make_stream(6).loader(), 6, log_every_n_steps=1, accelerator="gpu", devices=1)
    losses, _ = plain_training(make_model(), itertools.islice(make_stream(6), 6))
    assert [rows[update]["loss"] for update in range(1, 7)] == pytest.approx(losses, abs=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_optimiser(tmp_path, monkeypatch):
    """The weights are those of the update before, and the sentence says where it was."""
    c = configure("lag", vocabulary_size=10, sequences=20, accelerator="cpu")
    run, good = RunDirectory(tmp_path / "run"), []
    forward = EchoLSTM.forward

    def poisoned(model, symbols, state):
        good.append({name: value.clone() for name, value in model.state_dict().items()})
        logits, state = forward(model, symbols, state)
        return (logits * float("nan") if len(good) == 7 else logits), state

    models = []
    build = runner.build_model
    monkeypatch.setattr(runner, "build_model", lambda c: models.append(build(c)) or models[0])
    monkeypatch.setattr(EchoLSTM, "forward", poisoned)
    with pytest.raises(
        UserError, match=r"not finite at update 7, on sequence 1; .* Seed 1; no checkpoint was saved before"
    ):
        train(c, run)
    assert len(good) == 7
    assert all(torch.equal(value, good[6][name]) for name, value in models[0].state_dict().items())
    assert not run.result.exists()
