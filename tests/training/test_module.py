import itertools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from support.trainers import quiet_trainer

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
    train,
)  # fmt: skip
from echo_torch.errors import UserError
from echo_torch.lab import runner
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import count_asked, loss_sum, most_likely
from echo_torch.training.checkpoints import read_checkpoint
from echo_torch.training.evaluation import evaluate, read


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
    with quiet_lightning():
        trainer = quiet_trainer(max_steps=max_steps, logger=[rows], **{"log_every_n_steps": 1, **options})
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
    c = configure("lag", vocabulary_size=10, sequences=20, accelerator="cpu", kernel="autograd")
    run, good = RunDirectory(tmp_path / "run"), []
    forward = EchoLSTM.forward

    def poisoned(model, symbols, state):
        good.append({name: value.clone() for name, value in model.state_dict().items()})
        logits, state = forward(model, symbols, state)
        return (logits * float("nan") if len(good) == 7 else logits), state

    models = []
    build = Plan.model
    monkeypatch.setattr(Plan, "model", lambda plan: models.append(build(plan)) or models[0])
    monkeypatch.setattr(EchoLSTM, "forward", poisoned)
    with pytest.raises(
        UserError, match=r"not finite at update 7, on sequence 1; .* Seed 1; no checkpoint was saved before"
    ):
        train(c, run)
    assert len(good) == 7
    assert all(torch.equal(value, good[6][name]) for name, value in models[0].state_dict().items())
    assert not run.result.exists()


def test_an_absurd_learning_rate_stops_too(tmp_path, monkeypatch):
    """The step itself makes the weights infinite: no checkpoint ever holds such weights."""
    c = configure("lag", vocabulary_size=10, sequences=20, accelerator="cpu", checkpoint_every=1)
    run = RunDirectory(tmp_path / "run")
    monkeypatch.setattr(runner, "build_module", lambda c, model: EchoModule(model, learning_rate=1e38))
    with pytest.raises(UserError, match=r"not finite (any more after|at) update \d+.* Seed 1; ") as error:
        train(c, run)
    if run.checkpoint.exists():
        weights = read_checkpoint(run.checkpoint)["state_dict"].values()
        assert all(bool(values.isfinite().all()) for values in weights)
        assert "is saved in" in str(error.value)
    else:
        assert "no checkpoint was saved before" in str(error.value)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    """A finite loss with an infinite gradient: the checkpoint of the update before stays the last."""
    c = configure("lag", vocabulary_size=10, updates=20, accelerator="cpu", checkpoint_every=1, kernel="autograd")
    run = RunDirectory(tmp_path / "run")

    def spoil(module, optimizer):
        if module.trainer.global_step == 7:
            module.model.head.weight.grad[0, 0] = float("nan")

    monkeypatch.setattr(EchoModule, "on_before_optimizer_step", spoil)
    with pytest.raises(UserError, match=r"The weights are not finite any more after update 8.* update 7 is saved in"):
        train(c, run)
    assert read_checkpoint(run.checkpoint)["global_step"] == 7


def trained_alone():
    module = EchoModule(make_model())
    _, rows = fit(module, make_stream(3).loader(), 20, log_every_n_steps=4)
    return module, rows


@pytest.mark.parametrize("sanity_steps", [0, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_validation_and_sanity_check_have_states_of_their_own(sanity_steps, every):
    """Other lanes, another stream, in the middle of sequences: the training does not notice."""
    alone, expected = trained_alone()
    module, seen = EchoModule(make_model()), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append(pl_module.carry)

        def on_validation_end(self, trainer, pl_module):
            assert seen == [] if trainer.sanity_checking else pl_module.carry is seen[-1]

    validation = make_stream(7, lag=3)
    validation.num_chunks = 5
    rows = Rows()
    with quiet_lightning():
        trainer = quiet_trainer(
            max_steps=20, log_every_n_steps=4, logger=[rows], callbacks=[Watch()],
            val_check_interval=every, check_val_every_n_epoch=None, num_sanity_val_steps=sanity_steps,
        )  # fmt: skip
        trainer.fit(module, make_stream(3).loader(), validation.loader())
    assert len(seen) == 20
    for one, two in zip(alone.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, two)
    trained = {step: {n: v for n, v in row.items() if n in expected[4]} for step, row in rows.rows.items()}
    if every == 3:  # else a validation's row took the place of the training's
        assert {step: row for step, row in trained.items() if row and step != 12} == {
            step: row for step, row in expected.items() if step != 12
        }
    found = evaluate(module.model, validation)
    last = rows.rows[20 if every == 1 else 18]
    assert last["validation_targets"] == found.asked
    if every == 1:
        assert last["validation_accuracy"] == pytest.approx(found.accuracy)
        assert trainer.callback_metrics["validation_loss"] == pytest.approx(found.loss)


def test_prediction_and_test_between_two_trainings():
    """They read with zero states first, and leave the carried state of the training where it was."""
    module, _ = trained_alone()
    carry = module.carry
    stream = make_stream(4)
    stream.num_chunks = 6
    rows = Rows()
    with quiet_lightning():
        trainer = quiet_trainer(logger=[rows])
        first = trainer.predict(module, stream.loader())
        second = trainer.predict(module, stream.loader())
        trainer.test(module, stream.loader(), verbose=False)
    assert module.carry is carry
    expected = [most_likely(logits) for _, logits in read(module.model, stream)]
    for one, two, three in zip(first, second, expected, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    found = evaluate(module.model, stream)
    assert rows.rows[0] == pytest.approx(
        {"test_loss": found.loss, "test_accuracy": found.accuracy, "test_targets": found.asked}
    )


def test_they_begin_with_zeros_even_where_no_lane_is_reset():
    """Of loaders that never reset a lane: the second validation and the second prediction are as the first."""
    chunk = next(iter(make_stream(4)))._replace(starts=torch.zeros(4, dtype=torch.bool))
    module, rows = EchoModule(make_model()), Rows()
    with quiet_lightning():
        trainer = quiet_trainer(logger=[rows])
        found = []
        for _ in range(2):
            trainer.validate(module, loader(chunk, chunk), verbose=False)
            found.append(rows.rows.pop(0))
        answers = [torch.cat(trainer.predict(module, loader(chunk, chunk))) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(*answers)
    state = module.model.initial_state(4)
    _, state = module.model(chunk.symbols, state)
    logits, _ = module.model(chunk.symbols, state)
    assert torch.equal(answers[0][4:], most_likely(logits))


def test_a_training_of_ones_own_goes_on_from_lightnings_checkpoint(tmp_path):
    """With any Trainer, and a data module that begins where the checkpoint stood."""

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            stream = make_stream(3)
            stream.start = self.trainer.lightning_module.cursor
            return stream.loader()

    checkpoint = tmp_path / "own.ckpt"
    with quiet_lightning():
        whole = EchoModule(make_model())
        quiet_trainer(max_steps=3).fit(whole, Data())
        whole.load_state_dict(EchoModule(make_model()).state_dict())
        quiet_trainer(max_steps=20).fit(whole, Data())  # from chunk 0 again
        first = EchoModule(make_model())
        trainer = quiet_trainer(max_steps=9)
        trainer.fit(first, Data())
        trainer.save_checkpoint(checkpoint)
        second = EchoModule(make_model(5))
        quiet_trainer(max_steps=20).fit(second, Data(), ckpt_path=checkpoint)
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    assert second.cursor == whole.cursor == 20
    other = EchoModule(EchoLSTM(20, 8, 2))
    with quiet_lightning(), pytest.raises(ValueError, match="`carry` of the checkpoint must be"):
        quiet_trainer(max_steps=20).fit(other, Data(), ckpt_path=checkpoint)


def test_a_test_from_a_checkpoint_is_no_training_to_go_on_with(tmp_path):
    module, _ = trained_alone()
    stream = make_stream(4)
    stream.num_chunks = 2
    with quiet_lightning():
        trainer = quiet_trainer(max_steps=2)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        fresh = EchoModule(make_model())
        trainer.test(fresh, stream.loader(), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    assert fresh.carry is None
    assert fresh.cursor == 0
