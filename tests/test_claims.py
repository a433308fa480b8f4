"""What the README says of the experiments, at their defaults, over five seeds."""

import pytest

from echo_torch import EXPERIMENTS, RunDirectory, configure, train

pytestmark = pytest.mark.claims


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_claim(tmp_path, mode, seed):
    result = train(configure(mode, seed=seed, accelerator="cpu"), RunDirectory(tmp_path), audit="count")
    print(f"{mode} seed {seed}: accuracy {result['accuracy']:.4%} on {result['targets']} targets")
    if EXPERIMENTS[mode].claim == "chance":
        chance, targets = result["chance"], result["targets"]
        band = 4 * (chance * (1 - chance) / targets) ** 0.5
        assert abs(result["accuracy"] - chance) <= band
    else:
        assert EXPERIMENTS[mode].claim == "accuracy >= 0.99"
        assert result["accuracy"] >= 0.99
