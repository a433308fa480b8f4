"""What the README and docs/findings.md say of the experiments."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from echo_torch import EXPERIMENTS, EchoPredictor, RunDirectory, configure, train
from echo_torch.diagnosis.data_path.explaining import explain
from echo_torch.lab.plan import Plan
from echo_torch.lab.report import conclusion_lines, cures_of, interferes

pytestmark = pytest.mark.claims
ROOT = Path(__file__).parents[2]


IS_WHOLE = os.environ.get("ALL_CLAIMS") == "1"  # as the figures of the documentation were measured
whole = pytest.mark.skipif(not IS_WHOLE, reason="a minute or more: ALL_CLAIMS=1 runs it")


def sample(values, few):
    """All of them with ALL_CLAIMS=1, else a few."""
    return values if IS_WHOLE else few


def trained(path, mode, **options):
    configuration = configure(mode, accelerator="cpu", **options)
    result = train(configuration, RunDirectory(path), audit="count")
    print(f"{mode} {options}: accuracy {result['accuracy']:.4%} on {result['targets']} targets")
    return result


@pytest.mark.parametrize("kernel", ["direct", "autograd"])
@pytest.mark.parametrize("seed", sample([1, 2, 3, 4, 5], [1]))
@pytest.mark.parametrize("mode", sample(list(EXPERIMENTS), ["lag", "stateful", "aligned"]))
def test_claim(tmp_path, mode, seed, kernel):
    result = trained(tmp_path, mode, seed=seed, kernel=kernel)
    if EXPERIMENTS[mode].claim == "chance":
        chance, targets = result["chance"], result["targets"]
        band = 4 * (chance * (1 - chance) / targets) ** 0.5
        assert abs(result["accuracy"] - chance) <= band
    else:
        assert EXPERIMENTS[mode].claim == "accuracy >= 0.99"
        assert result["accuracy"] >= 0.99
        assert not interferes(result)


def shown_by(command, folder):
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    found = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=True)
    return found.stdout


def accuracy_in(text):
    return float(re.search(r"^accuracy ([\d.]+)%", text, flags=re.MULTILINE)[1]) / 100


def test_lag_4_ends_with_interference_named_and_a_cure_that_cures(tmp_path):
    """The command that the report prints is run as printed; predict says what evaluate says, as in training and not."""
    text = shown_by("python -m echo_torch train --mode lag --lag 4 --run-dir run", tmp_path)
    assert accuracy_in(text) < 0.5
    assert "the carried state is in the way (interference); try --carry reset" in text
    assert accuracy_in(shown_by(re.search("^for example: (.*)$", text, flags=re.MULTILINE)[1], tmp_path)) >= 0.99
    result = RunDirectory(tmp_path / "run").read_result()
    first, *later = result["accuracy_by_chunk"]
    assert first > 0.9
    assert max(later) < 0.2
    assert result["accuracy_reset"] > 0.9
    predictors = {state: EchoPredictor.load(tmp_path / "run", state=state) for state in ("carried", "fresh")}
    assert EchoPredictor.load(tmp_path / "run").state == "carried"
    right = dict.fromkeys(predictors, 0)
    source = Plan(predictors["fresh"].configuration).evaluation().source
    for sequence in range(1000):
        symbols = source(np.array(sequence), np.arange(25)).tolist()
        for state, predictor in predictors.items():
            answers = predictor.answers(symbols, top_k=0)
            right[state] += sum(a.symbol == symbols[a.of] for a in answers if a.position >= 5)  # what evaluate asks
    assert right["carried"] == round(result["accuracy"] * result["targets"])
    assert right["fresh"] == round(result["accuracy_reset"] * result["targets"])


@whole
@pytest.mark.parametrize("lag", [2, 3, 4])
def test_every_cure_of_the_report_cures(tmp_path, lag):
    c = configure("lag", lag=lag)
    cures = cures_of(c, Plan(c).reach())
    assert len(cures) == 3
    for cure in cures:
        assert accuracy_in(shown_by(cure.command, tmp_path)) >= 0.99, cure.flags


@whole
@pytest.mark.parametrize("hidden_size", [25, 50, 100])
@pytest.mark.parametrize("lag", [2, 3, 4])
def test_the_tutorials_expectation_of_other_lags_holds_where_the_state_is_reset(tmp_path, lag, hidden_size):
    options = {"lag": lag, "hidden_size": hidden_size, "seed": 2}
    carried = trained(tmp_path / "carried", "lag", **options)
    reset = trained(tmp_path / "reset", "lag", carry="reset", **options)
    assert reset["accuracy"] >= 0.99
    assert carried["accuracy_high"] < reset["accuracy_low"]
    assert interferes(carried)
    assert not interferes(reset)


BANDS = [(4, 0.2, 0.35), (10, 0.48, 0.53), (20, 0.99, 1.0)]


@pytest.mark.parametrize(("batch_size", "low", "high"), sample(BANDS, BANDS[1:2]))
def test_batch_size_shows_at_lag_4(tmp_path, batch_size, low, high):
    """One batch of 20 hands nothing over; of two batches of 10 the first is right."""
    assert low <= trained(tmp_path, "lag", lag=4, batch_size=batch_size)["accuracy"] <= high


@pytest.mark.parametrize("seed", sample([1, 2, 3], [1]))
def test_a_horizon_that_holds_the_answer_is_not_necessary(tmp_path, seed):
    options = {"chunk": 1, "vocabulary_size": 10, "learning_rate": 1e-3, "updates": 4000, "seed": seed}
    result = trained(tmp_path, "aligned", **options)
    assert result["accuracy"] >= 0.9
    metrics = RunDirectory(tmp_path).read_metrics()
    c = configure("aligned", **options)
    text = " ".join([explain(Plan(c).reach()), *conclusion_lines(c, Plan(c).reach(), result, metrics)])
    assert "luck" not in text
    assert "no gradient gets from a question" in text


@pytest.mark.parametrize("learning_rate", sample([1e-3, 3e-3, 1e-2], [3e-3]))
def test_the_border_of_the_map(tmp_path, learning_rate):
    """A chunk of lag + 1 suffices up to lag 3; below it, from lag 2 on, half is not reached within 4,000 updates."""
    options = {"vocabulary_size": 10, "updates": 4000, "learning_rate": learning_rate}
    for lag in sample((1, 2, 3), (2,)):
        at_border = trained(tmp_path / f"{lag}", "aligned", lag=lag, chunk=lag + 1, **options)
        assert at_border["accuracy"] >= 0.98
    for lag, chunk in sample(((2, 1), (2, 2), (3, 3)), ((2, 2),)):
        assert trained(tmp_path / f"{lag}-{chunk}", "aligned", lag=lag, chunk=chunk, **options)["accuracy"] < 0.5


def test_stateful_lag_6_is_right_at_the_first_hand_over_alone(tmp_path):
    """Of the batches of a sequence: the first has nothing, the second all, the others little; lag 6 is asked."""
    by_chunk = trained(tmp_path, "stateful", lag=6)["accuracy_by_chunk"]
    assert by_chunk[0] < 0.05
    assert by_chunk[1] > 0.95
    assert max(by_chunk[2:]) < 0.2


@whole
@pytest.mark.parametrize(("symbols", "read", "kept"), [(10, 0.2, 0.99), (100, 0.03, 0.25)])
def test_an_untrained_recurrence_keeps_more_than_a_trained_head_reads(symbols, read, kept):
    """What `aligned` with chunks of one step ends at, 8 %, is not what an untrained recurrence keeps of a symbol."""
    controls = runpy.run_path(str(ROOT / "docs" / "controls.py"))
    assert controls["result"]("head trained", symbols, 1)["accuracy"] < read
    assert controls["result"]("head fitted", symbols, 1)["accuracy"] > kept
