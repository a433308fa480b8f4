"""A user's own model in Python: looked at before anything is made, trained, resumed exactly, never run by itself."""

import hashlib
import json
import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support import own_sources, runs
from support.processes import TIMES, files
from support.runs import StopError, everything, stop_at

from echo_torch import EchoPredictor, OnlineEcho, RunDirectory, train
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.configuration import replace
from echo_torch.lab import many
from echo_torch.lab.comparison import ARMS, comparison_runs, run_comparison
from echo_torch.lab.finished import load_model
from echo_torch.lab.many import train_many
from echo_torch.lab.map_and_lags import lags_grid, lags_table, map_grid
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import weights_sha256
from echo_torch.models.own_model import own_model_class, source_digest
from echo_torch.randomness import random_state
from echo_torch.training.checkpoints import CheckpointWarning, read_checkpoint, write_checkpoint

SUPPORT = Path(own_sources.__file__).with_name("own_models.py")
short = partial(runs.short, vocabulary_size=10, validate_every=12)


def own(name="GRU", mode="lag", **options):
    return short(mode, model=f"support.own_models:{name}", **options)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def changed(name, text=own_sources.GOOD):
    """Change a module's source and begin a new program, as it were."""
    own_sources.write(name, f"{text}# changed\n")


REFUSED = [
    ("NoModule", r"`model` must name an nn.Module .*Got support.own_models:NoModule, a class that is no nn.Module\."),
    ("function", "Got support.own_models:function, a function"),
    ("NoForward", "a class without forward"),
    ("NoState", "a class without initial_state"),
    ("Nestd", r"there is no Nestd \(did you mean 'Nested'\?\)"),
    ("GRU.Inner", "must name a class in GRU. Got .* there is no Inner"),
    ("Raises", r"cannot be built: ValueError: width and height must agree\.$"),
    ("NoWeights", "must have weights to train"),
    ("Lazy", "must know the shapes of its weights"),
    ("OneLogit", r"must return logits .*Got torch.float32 of shape \(2, 10\) where \(2, 3, 10\) is expected"),
    ("OnlyLogits", r"must return two values, \(logits, state\). Got a Tensor"),
    ("NoGaps", "given symbols where -1 says that nothing is read, fails: IndexError"),
    ("OtherState", r"must return a state of the form .*Got state \(1, 8\) where state \(2, 8\) is expected"),
    ("TiedLanes", "`initial_state` must give the lanes an axis of their own"),
    ("Extra", "The state_dict of support.own_models:Extra must hold plain tensors"),
    ("Learned", "takes width, rate. Got nothing for width"),
]


@pytest.mark.parametrize(("name", "message"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_cannot_be_trained_is_refused_before_anything_is_made(tmp_path, name, message):
    before = random_state()
    with pytest.raises(UserError, match=message) as caught:
        train(own(name), RunDirectory(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert_same(random_state(), before)
    with pytest.raises(UserError, match=message):
        train_many({"one": own(name)}, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def assert_same(one, other):
    assert torch.equal(one["python"][1], other["python"][1])
    assert torch.equal(one["torch"], other["torch"])
    assert torch.equal(one["numpy"][1], other["numpy"][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("widht=3", r"takes width\. Got widht \(did you mean 'width'\?\)"),
        ("vocabulary_size=3", "`model_options` must leave vocabulary_size to `vocabulary_size`"),
        ("width=x", "cannot be built: TypeError"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        train(own(model_options=options), RunDirectory(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("none_such:Net", None, "a module that can be imported, and there is no none_such. Got none_such; begin in"),
        ("none_such.part:Net", None, "there is no none_such. Got none_such.part"),
        (
            "own_asks:Net",
            "import none_such_either",
            "'own_asks' cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("own_syntax:Net", "def", r"'own_syntax' cannot be imported: SyntaxError: .*own_syntax.py, line 1\)\.$"),
        ("own_fails:Net", "1 / 0", r"'own_fails' cannot be imported: ZeroDivisionError: division by zero\.$"),
        ("own_ends:Net", "import sys; sys.exit('bye\\nbye')", r"cannot be imported: SystemExit: bye bye\.$"),
        ("echo_torch.models:EchoLSTM.lstm", None, "there is no lstm"),
        ("__main__:own_in_a_notebook", None, "stands in no source file"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, path, text, message):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "own_in_a_notebook", in_a_notebook(), raising=False)
    monkeypatch.delattr(main, "__file__", raising=False)
    if text is not None:
        own_sources.write(path.partition(":")[0], text)
    with pytest.raises(UserError, match=message) as caught:
        train(short(model=path), RunDirectory(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def in_a_notebook():
    """A class that was typed in."""
    found = {}
    exec("from support.own_models import GRU\nclass Net(GRU):\n    pass\n", {"__name__": "__main__"}, found)
    return found["Net"]


def test_any_class_that_has_what_is_needed_will_do():
    """One of a module in the current directory, one of a package, one that reads digits, one without a vocabulary."""
    own_sources.write("own_here")
    model = Plan(short(model="own_here:Net", model_options="width=3")).model()
    assert (model.width, model.size) == (3, 10)
    model = Plan(short(model="echo_torch.models:EchoGRU", model_options="hidden_size=4,base=4")).model()
    assert model.head.out_features == 8
    own_sources.write("own_fixed", own_sources.GOOD + "\n    def __init__(self):\n        super().__init__(10, 2)\n")
    assert Plan(short(model="own_fixed:Net")).model().width == 2
    assert Plan(own("Nested", model_options="colour=red")).model().others == {"colour": "red"}


def test_first_weights_come_from_the_seed_alone():
    """Whichever generator they are drawn from; and the generators are left as they were."""
    configuration = own("Learned", model_options="width=4")
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
        before = random_state()
        digests.add(weights_sha256(Plan(configuration).model().state_dict()))
        assert_same(random_state(), before)
    assert len(digests) == 1
    assert digests != {weights_sha256(Plan(replace(configuration, seed=2)).model().state_dict())}


def test_what_a_run_leaves(tmp_path):
    run = RunDirectory(tmp_path / "run")
    result = train(own("Nested", "aligned", model_options={"width": 5}), run, curve=True)
    digest = hashlib.sha256(SUPPORT.read_bytes()).hexdigest()
    saved = yaml.safe_load(run.config.read_text())
    assert list(saved)[-1] == "model_source"
    assert saved["model_source"] == digest == Plan(own()).model_digest
    assert json.loads(run.result.read_text()) == result
    assert result["model_source"] == digest
    assert read_checkpoint(run.checkpoint)["run"]["model_source"] == digest
    assert "hidden_size" not in result["config"]
    model = Plan(own("Nested", model_options="width=5")).model()
    assert result["parameters"] == sum(weight.numel() for weight in model.parameters())
    with pytest.raises(RuleError, match=r"`model` must repeat support.own_models:Nested, the class that .*config.yaml"):
        load_model(run)
    _, model = load_model(run, model="support.own_models:Nested")
    assert not model.training
    assert weights_sha256(model.state_dict()) == result["weights_sha256"]
    assert Plan(own("Nested", "aligned", model_options={"width": 5})).evaluate(model).accuracy == result["accuracy"]


def test_runs_of_the_networks_here_say_nothing_of_it(tmp_path):
    run = RunDirectory(tmp_path / "run")
    result = train(short(), run)
    assert not {"model_source", "model_options"} & {*result, *result["config"], *yaml.safe_load(run.config.read_text())}
    assert set(read_checkpoint(run.checkpoint)["run"]) == {"config", "versions", "data", "seconds"}
    assert load_model(run, model="lstm")[0] == load_model(run)[0]
    with pytest.raises(
        RuleError, match=r"`model` must be lstm, the model in .*Got support.own_models:GRU; leave it out"
    ):
        load_model(run, model="support.own_models:GRU")
    with pytest.raises(
        RuleError, match="`allow_changed_model` has an effect only where `model` is a class of your own"
    ):
        load_model(run, allow_changed_model=True)
    with pytest.raises(RuleError, match="`allow_changed_model` has an effect only where"):
        train(short(), run, resume="auto", allow_changed_model=True)
    with pytest.raises(RuleError, match="has an effect only together with `resume`"):
        train(own(), RunDirectory(tmp_path / "other"), allow_changed_model=True)


VARIANTS = [{"name": "GRU", "mode": "masked", "missing": 0.2}]
SLOW_VARIANTS = [
    {"name": "Nested", "mode": "aligned", "reset_every": 7, "stagger": True},
    {"name": "GRU"},
    {"name": "Nested", "mode": "stateful", "clip_norm": 0.1, "workers": 1},
    {"name": "Half", "mode": "lag", "batch_size": 7},
    {"name": "Learned", "mode": "whole", "model_options": "width=4,rate=0.1"},
]


@pytest.mark.parametrize(
    "options",
    [*VARIANTS, *[pytest.param(options, marks=pytest.mark.slow) for options in SLOW_VARIANTS]],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_stopped_at_several_places_it_ends_to_the_bit_as_if_it_never_was(tmp_path, monkeypatch, options):
    """Dropout and a weight without a gradient among them."""
    configuration = own(**options)
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    torch.manual_seed(1)
    result = train(configuration, whole, audit="count")
    for cursor in (2, 8, 12, 13):
        with monkeypatch.context() as patch:
            stop_at(patch, cursor)
            with pytest.raises(StopError):
                train(configuration, run, audit="count", resume="auto")
    torch.manual_seed(random.getrandbits(32))  # the global random state must not matter
    again = train(configuration, run, audit="count", resume="auto")
    assert {**again, **dict.fromkeys(TIMES)} == {**result, **dict.fromkeys(TIMES)}
    assert files(run.path) == files(whole.path)


def test_training_leaves_the_random_state_as_it_was(tmp_path):
    before = random_state()
    train(own("Nested"), RunDirectory(tmp_path / "run"))
    assert_same(random_state(), before)


def test_a_weight_of_a_network_here_must_have_its_moments(tmp_path):
    """That of an own model need not, where no gradient reaches it; but what is there must fit."""
    for configuration, message in ((short(), "what Adam remembers"), (own("Nested"), None)):
        run = RunDirectory(tmp_path / str(message))
        train(configuration, run)
        checkpoint = read_checkpoint(run.checkpoint)
        states = checkpoint["optimizer_states"][0]["state"]
        assert (len(states) < len(list(Plan(configuration).model().parameters()))) == (message is None)
        longer = replace(configuration, updates=30)
        if message is None:
            train(longer, run, resume="auto")
            some = states[min(states)]
            some["exp_avg"] = some["exp_avg"][:1]
        else:
            del states[0]
        write_checkpoint(checkpoint, tmp_path / "bad.ckpt")
        with pytest.raises(UserError, match="what Adam remembers"):
            train(replace(longer, updates=40), run, resume=tmp_path / "bad.ckpt")
        write_checkpoint({**checkpoint, "optimizer_states": []}, tmp_path / "empty.ckpt")
        with pytest.raises(UserError, match="what Adam remembers"):
            train(replace(longer, updates=40), run, resume=tmp_path / "empty.ckpt")


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_another_source_is_refused_or_allowed(tmp_path, has_checkpoint):
    own_sources.write("own_changes")
    configuration, run = short(model="own_changes:Net", updates=20), RunDirectory(tmp_path / "run")
    longer = replace(configuration, updates=30)
    train(configuration, run)
    old = Plan(configuration).model_digest
    if not has_checkpoint:  # as if it had been killed before the first was written
        for path in (*run.checkpoint.parent.iterdir(), run.result):
            path.unlink()
    before = everything(run.path)
    changed("own_changes")
    message = "was written with another source of own_changes:Net, and other code .* by `allow_changed_model`"
    with pytest.raises(RuleError, match=message):
        train(longer, run, resume="auto")
    if has_checkpoint:
        for load in (load_model, EchoPredictor.load, OnlineEcho.load):
            with pytest.raises(RuleError, match=message):
                load(run if load is load_model else run.path, model="own_changes:Net")
            with pytest.warns(CheckpointWarning, match="another source of own_changes:Net: the new one is used"):
                load(run if load is load_model else run.path, model="own_changes:Net", allow_changed_model=True)
    assert everything(run.path) == before
    with pytest.warns(CheckpointWarning, match="another source of own_changes:Net: the new one is used, as allowed"):
        result = train(longer, run, resume="auto", allow_changed_model=True)
    new = Plan(longer).model_digest
    assert new != old
    assert result["model_source"] == new == yaml.safe_load(run.config.read_text())["model_source"]
    assert read_checkpoint(run.checkpoint)["run"]["model_source"] == new
    load_model(run, model="own_changes:Net")


def test_a_source_that_makes_another_network_is_refused_even_where_it_is_allowed(tmp_path):
    """Before anything is changed."""
    own_sources.write("own_grows")
    configuration, run = short(model="own_grows:Net", updates=20), RunDirectory(tmp_path / "run")
    train(configuration, run)
    before = everything(run.path)
    wider = "\n    def __init__(self, vocabulary_size):\n        super().__init__(vocabulary_size, 9)\n"
    longer = (
        "\n    def initial_state(self, num_lanes):\n        return super().initial_state(num_lanes), None\n"
        "\n    def forward(self, symbols, state):\n        logits, state = super().forward(symbols, state[0])\n"
        "        return logits, (state, None)\n"
    )
    for text, message in ((wider, "belongs to another network: model.cell"), (longer, "must be a state of this model")):
        changed("own_grows", own_sources.GOOD + text)
        with pytest.warns(CheckpointWarning), pytest.raises(UserError, match=message):
            train(replace(configuration, updates=30), run, resume="auto", allow_changed_model=True)
        assert everything(run.path) == before


def test_nothing_in_a_directory_is_run_by_itself(tmp_path):
    """Not even imported, whatever the directory says, until the model is named again."""
    own_sources.write("own_witness", own_sources.WITNESS)
    configuration, run = short(model="own_witness:Net"), RunDirectory(tmp_path / "run")
    train(configuration, run)
    own_sources.forget("own_witness")
    witness = tmp_path / "it-was-run"
    witness.unlink()
    calls = [
        run.read_config,
        lambda: load_model(run),
        lambda: load_model(run, model="support.own_models:GRU"),
        lambda: EchoPredictor.load(run.path),
        lambda: OnlineEcho.load(run.path),
        lambda: train(short(), run, resume="auto"),
        lambda: train(own(), run, resume="auto"),
        lambda: train(own(), RunDirectory(tmp_path / "new"), resume=run.checkpoint),
    ]
    for call in calls:
        with pytest.raises(RuleError, match="`model`"):
            call()
        assert not witness.exists()
        assert "own_witness" not in sys.modules
    load_model(run, model="own_witness:Net")
    assert witness.exists()


def test_the_source_is_that_of_the_file_that_defines_the_class(tmp_path):
    """Not of one that hands it on; and what a module was when it was imported, whatever the file says later."""
    own_sources.write("own_front", "from support.own_models import GRU as Net\n")
    found = own_model_class("own_front:Net")
    assert source_digest(found) == hashlib.sha256(SUPPORT.read_bytes()).hexdigest()
    own_sources.write("own_late")
    first = Plan(short(model="own_late:Net")).model_digest
    Path("own_late.py").write_text("nothing\n")
    assert Plan(short(model="own_late:Net")).model_digest == first


def test_a_sweep_does_not_take_runs_of_another_source(tmp_path):
    own_sources.write("own_swept")
    runs_of_it = {"one": short(model="own_swept:Net", validate_every=None)}
    train(runs_of_it["one"], RunDirectory(tmp_path / "runs" / "one"))
    assert train_many(runs_of_it, tmp_path / "runs")["one"]["updates"] == 24
    changed("own_swept")
    with pytest.raises(UserError, match="with another source of own_swept:Net, and no finished run is overwritten"):
        train_many(runs_of_it, tmp_path / "runs")


def test_a_model_is_looked_at_once_for_all_runs_of_a_sweep(monkeypatch, tmp_path):
    looked_at = []
    monkeypatch.setattr(Plan, "check_model", lambda plan: looked_at.append(plan.configuration.model_options))
    monkeypatch.setattr(many, "_train", lambda *args: {})
    grid = lags_grid((1, 2), num_seeds=2, model="support.own_models:GRU", model_options=["width=2", "width=3"])
    with pytest.raises(UserError, match="was removed"):
        train_many(grid.runs(), tmp_path / "runs")
    assert looked_at == ["width=2", "width=3"]


def test_every_arm_is_trained_with_the_given_model(tmp_path):
    arms = [arm for arm in ARMS if "model" not in ARMS[arm].options]
    for network in ({"model": "gru"}, {"model": "a.b:C", "model_options": "width=3"}):
        for name, c in comparison_runs(arms, 1, **network).items():
            assert (c.model, c.model_options) == (network["model"], network.get("model_options")), name
            assert (c.reading, c.learning_rate) == (
                comparison_runs(arms, 1)[name].reading,
                comparison_runs(arms, 1)[name].learning_rate,
            )
    with pytest.raises(RuleError, match=r"`arms` must leave the network to `model`.*Got mlp-4, which is about .* mlp"):
        run_comparison(["lag", "mlp-4"], 1, tmp_path / "runs", model="gru")
    assert list(tmp_path.iterdir()) == []


def test_grids_of_an_own_model():
    grid = map_grid((0,), (1,), (0.01,), model="a.b:C", model_options={"width": 3})
    (c,) = grid.runs().values()
    assert (c.model, c.model_options) == ("a.b:C", "width=3")
    options = [{"width": 25}, "width=50,depth=2", "width=25", "path=../x y"]
    grid = lags_grid((1,), None, ("keep",), 1, model="a.b:C", model_options=options)
    assert grid.axes["model_options"] == ["width=25", "depth=2,width=50", "path=../x y"]
    names = list(grid.runs())
    assert names[:2] == [f"lag1-modeloptions{text}-carrykeep-seed1" for text in grid.axes["model_options"][:2]]
    assert "/" not in names[2]
    assert len(set(names)) == 3
    assert [c.model_options for c in grid.runs().values()] == grid.axes["model_options"]
    for make, name, value in (
        (map_grid, "hidden_size", 50),
        (partial(lags_grid, (1,)), "hidden_sizes", (25,)),
    ):
        with pytest.raises(
            RuleError, match="`hidden_size` has an effect only where `model` is one of the networks here"
        ):
            make(model="a.b:C", **{name: value})
    for make in (map_grid, lags_grid):
        with pytest.raises(RuleError, match="`model_options` has an effect only where `model` is a class of your own"):
            make(model="gru", model_options=["width=3"])
    assert {c.model for c in map_grid(model="gru").runs().values()} == {"gru"}
    assert {c.hidden_size for c in lags_grid(model="rnn").runs().values()} == {25, 50, 100}


def test_the_table_of_lags_names_the_arguments():
    cell = {"lag": 1, "carry": "keep", "accuracy": 1.0, "accuracy_half_interval": 0.0, "accuracy_reset": 1.0}
    cell |= {
        "accuracies": [1.0],
        "seeds": 1,
        "sequences_to_99_by_seed": [],
        "sequences": 20,
        "seconds": 1.0,
        "parameters": 7,
    }
    lines = lags_table([{**cell, "model_options": text} for text in ("width=3", None)]).splitlines()
    assert lines[0].startswith("| lag | model options | state |")
    assert [line.split(" | ")[1] for line in lines[2:]] == ["width=3", "-"]


@pytest.mark.slow
def test_several_processes_train_it_and_go_on_exactly(tmp_path):
    """Its module is found in each, and a weight that no gradient reaches stops none."""
    own_sources.write("own_several", "from support.own_models import Nested as Base\n\n\nclass Net(Base):\n    pass\n")
    configuration = short("aligned", model="own_several:Net", devices=2, updates=18, checkpoint_every=9)
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    train(configuration, whole, audit="count")
    train(replace(configuration, updates=9), run, audit="count")
    train(configuration, run, audit="count", resume="auto")
    assert files(run.path) == files(whole.path)
