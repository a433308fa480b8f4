"""Draws figures of the README anew: `python docs/figures.py` trains what they show (about half a minute).

The others come from the commands `reach --plot`, `compare --seeds 10` and `map`, which docs/findings.md names.
"""

import tempfile
from pathlib import Path

from echo_torch import RunDirectory, configure, train
from echo_torch.figures import draw_side_by_side

with tempfile.TemporaryDirectory() as folder:
    runs = []
    for mode in ("stateful", "lag"):
        run = RunDirectory(Path(folder) / mode)
        train(configure(mode), run, audit="count", progress=True)
        runs.append(run)
    draw_side_by_side(runs, Path(__file__).parent / "stateful_beside_lag.png")
