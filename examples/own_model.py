"""Models of one's own in the experiments of this project: trained, resumed, evaluated and looked at like any other.

On the command line, from the directory that holds examples/:

    python train.py --mode aligned --model examples.state_space:StateSpace --model-options "width=32"
"""

import sys
import tempfile
from pathlib import Path

from echo_torch import RunDirectory, configure, probe, train
from echo_torch.lab import load_model

sys.path.insert(0, str(Path(__file__).parents[1]))
MODELS = {
    "state space model": ("examples.state_space:StateSpace", {"width": 32}),
    "transformer with a cache": ("examples.transformer:CachedAttention", {"width": 32, "window": 4}),
}


def learn(model, options):
    """Lanes that go on reading where they stopped, asked for the symbol two steps ago."""
    recipe = {"vocabulary_size": 10, "lag": 2, "updates": 600, "reset_every": 30, "stagger": True, "accelerator": "cpu"}
    configuration = configure("aligned", model=model, model_options=options, **recipe)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        result = train(configuration, run)
        _, trained = load_model(run, model=model)  # named again: nothing that stands in a directory is run by itself
    return result, trained


if __name__ == "__main__":
    for name, (model, options) in MODELS.items():
        result, trained = learn(model, options)
        faults = probe(trained, vocabulary_size=10, num_steps=5).faults
        print(f"{name}: accuracy {result['accuracy']:.1%}, {result['parameters']:,} parameters, faults {faults}")
