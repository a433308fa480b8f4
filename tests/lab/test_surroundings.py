"""What surrounds a training in its process changes none of its bits, or is refused in a sentence."""

import contextlib
import inspect
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytorch_lightning as pl
import torch
from support import own_models, runs

from echo_torch import EchoGRU, EchoLSTM, EchoMLP, EchoRNN, RunDirectory, train
from echo_torch.errors import RuleError, UserError
from echo_torch.lab import runner, surroundings
from echo_torch.lab.finished import load_model
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import weights_sha256
from echo_torch.randomness import seeded

OWN = f"{own_models.__name__}:Nested"


def short(seed=1, **options):
    return runs.short(updates=8, vocabulary_size=10, hidden_size=4, seed=seed, **options)


def bits(result):
    """All of a result that hangs on the weights and the data."""
    return {name: result[name] for name in ("weights_sha256", "accuracy", "accuracy_reset", "loss", "updates", "gaps")}


@pytest.fixture(scope="module", autouse=True)
def short_evaluations():
    """Bits differ after few questions too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan.evaluation, "__defaults__", (50,))
        yield


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """The run of seed 1, where nothing surrounds it."""
    run = RunDirectory(tmp_path_factory.mktemp("plain") / "run")
    train(short(), run, audit="count")
    return run


@pytest.fixture(scope="module")
def expected(plain_run):
    return bits(plain_run.read_result())


# Lightning's variables


def test_no_variable_of_lightning_reaches_a_run(tmp_path, monkeypatch, expected):
    """Those of every argument of its Trainer, with values that mean something and values that mean nothing."""
    for name in inspect.signature(pl.Trainer).parameters:
        monkeypatch.setenv(f"PL_TRAINER_{name.upper()}", "nonsense")
    for name, value in (("FAST_DEV_RUN", "1"), ("ACCUMULATE_GRAD_BATCHES", "2"), ("PRECISION", "bf16-mixed")):
        monkeypatch.setenv(f"PL_TRAINER_{name}", value)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "nonsense")
    run = RunDirectory(tmp_path / "run")
    assert bits(train(short(), run, audit="count")) == expected
    assert run.read_metrics()["update"] == [4, 8]
    assert os.environ["PL_GLOBAL_SEED"] == os.environ["PL_SEED_WORKERS"] == "nonsense"


def test_a_trainer_has_what_it_is_given_and_defaults(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "7")
    monkeypatch.setenv("PL_TRAINER_GRADIENT_CLIP_VAL", "7")
    trainer = runner.build_trainer(short(clip_norm=0.5))
    assert (trainer.max_epochs, trainer.max_steps, trainer.gradient_clip_val) == (None, 8, 0.5)


# First weights


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[(kind, {}) for kind in (EchoLSTM, EchoGRU, EchoRNN, EchoMLP)],
        *[(kind, {"num_layers": 3, "base": 4}) for kind in (EchoLSTM, EchoGRU, EchoRNN)],
        (EchoLSTM, {"init": "keras", "num_layers": 2}),
        (EchoMLP, {"window_length": 1, "base": 2}),
    ],
)
def test_a_generator_of_its_own_draws_the_same_weights(kind, options):
    """As the global one does, which is left alone."""
    torch.manual_seed(11)
    expected = weights_sha256(kind(13, 6, **options).state_dict())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = kind(13, 6, **options, generator=torch.Generator().manual_seed(11))
    assert weights_sha256(found.state_dict()) == expected
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_first_weights_are_those_of_the_layers_of_torch(kind):
    torch.manual_seed(3)
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[kind](10, 4, 2, batch_first=True)
    head = torch.nn.Linear(4, 10)
    expected = [*layer.parameters(), *head.parameters()]
    model = Plan(short(3, model=kind, layers=2)).model()
    assert all(map(torch.equal, model.parameters(), expected))
    torch.manual_seed(3)
    expected = [*torch.nn.Conv1d(10, 4, 5).parameters(), *torch.nn.Linear(4, 10).parameters()]
    assert all(map(torch.equal, EchoMLP(10, 4, 5, generator=torch.Generator().manual_seed(3)).parameters(), expected))


def test_threads_that_draw_at_once_draw_what_each_draws_alone():
    """Networks here from generators of their own; a model of a user's own one after the other."""
    options = [{"hidden_size": 50}, {"model": "gru"}, {"model": OWN, "model_options": "width=5"}]
    configurations = [runs.short(seed=seed, **options[seed % 3]) for seed in range(24)]
    before = torch.get_rng_state()
    alone = [weights_sha256(Plan(c).model().state_dict()) for c in configurations]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda c: weights_sha256(Plan(c).model().state_dict()), configurations)) == alone
    assert torch.equal(torch.get_rng_state(), before)


# What a thread has switched on


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default device": lambda: default_device("meta"),
}


def test_threads_that_train_at_once_get_what_each_gets_alone(tmp_path, expected):
    """Each with a seed of its own, and each with something else switched on around it."""
    alone = {1: expected, 2: bits(train(short(2), RunDirectory(tmp_path / "alone"), audit="count"))}
    barrier = threading.Barrier(4)

    def one(number):
        with list(AROUND.values())[number]():
            barrier.wait()
            return bits(train(short(1 + number % 2), RunDirectory(tmp_path / str(number)), audit="count"))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert found == [alone[1], alone[2], alone[1], alone[2]]


@pytest.mark.parametrize("around", AROUND)
def test_an_evaluation_repeats_the_run_whatever_is_switched_on(plain_run, expected, around):
    with AROUND[around]():
        configuration, model = load_model(plain_run)
        found = Plan(configuration).evaluate(model)
    assert weights_sha256(model.state_dict()) == expected["weights_sha256"]
    assert (found.accuracy, found.loss) == (expected["accuracy"], expected["loss"])


# What holds for the whole process


@pytest.mark.parametrize(
    ("change", "restore", "message"),
    [
        (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
            "PyTorch's default_dtype must be torch.float32 around a run, because the numbers of a run hang on its "
            r"configuration alone\. Got torch.float64; call torch.set_default_dtype\(torch.float32\) before it\.",
        ),
        (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: torch.set_float32_matmul_precision("highest"),
            "float32_matmul_precision must be highest .* Got medium",
        ),
        (
            lambda: torch.backends.mkldnn.set_flags(False),
            lambda: torch.backends.mkldnn.set_flags(True),
            "mkldnn must be True .* Got False",
        ),
        (
            lambda: torch.set_flush_denormal(True),
            lambda: torch.set_flush_denormal(False),
            "flush_denormal must be False .* Got True",
        ),
    ],
)
def test_a_setting_that_threads_share_is_refused(tmp_path, change, restore, message):
    change()
    try:
        with pytest.raises(RuleError, match=message):
            train(short(), RunDirectory(tmp_path / "run"))
    finally:
        restore()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("running", "new", "launcher", "message"),
    [
        ({"model": OWN}, {}, {}, r"A `model` of your own must train alone in its process, because it may draw from"),
        ({}, {"model": OWN}, {}, rf"Got {OWN} while another thread trains; train one after the other"),
        ({}, {"threads": 2}, {}, r"`threads` must be 1, as of the training in another thread .* Got 2; train one"),
        ({}, {"devices": 2}, {"RANK": "0"}, r"A training of several processes must be alone in each of them"),
    ],
)
def test_trainings_that_would_disturb_each_other(tmp_path, monkeypatch, running, new, launcher, message):
    with surroundings.own_surroundings(runs.short(**running)):
        if launcher:
            others = {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
            for name, value in {**others, **launcher}.items():
                monkeypatch.setenv(name, value)
        with pytest.raises(RuleError, match=message):
            train(runs.short(**new), RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with surroundings.own_surroundings(runs.short(**new)):
        pass


def test_a_forked_child_has_no_trainings_yet():
    with surroundings.own_surroundings(runs.short(model=OWN)):
        child = os.fork()
        if child == 0:
            try:
                with surroundings.own_surroundings(runs.short(threads=2)):
                    os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_no_model_of_ones_own_is_made_while_another_thread_trains_one():
    """It would draw from the same generators: it is refused, and not kept waiting for hours."""
    plan = Plan(runs.short(model=OWN))
    with ThreadPoolExecutor(1) as pool:
        with seeded(1, for_long=True), pytest.raises(UserError, match="generators that all threads share, and another"):
            pool.submit(plan.model).result(10)
        assert pool.submit(plan.model).result(10) is not None
