"""Draws figures of the README and docs anew: `python docs/figures.py` trains what they show (about a minute).

The others come from the commands `reach --plot`, `compare`, `map`, `lags` and `sweep`, which docs/findings.md names.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from echo_torch import RunDirectory, configure, train
from echo_torch.lab.figures import draw_by_chunk, draw_side_by_side

DOCS = Path(__file__).parent


def trained(folder: Path, name: str, mode: str, **options: object) -> RunDirectory:
    """A finished run."""
    run = RunDirectory(folder / name)
    train(configure(mode, **options), run, audit="count", progress=True)
    return run


def main() -> None:
    """Train and draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_side_by_side(
            [trained(folder, mode, mode) for mode in ("stateful", "lag")], DOCS / "stateful_beside_lag.png"
        )
        figure, panels = plt.subplots(1, 3, sharey=True, figsize=(11, 3.6), layout="constrained")
        runs = (
            ("lag --lag 4: the state is in the way", "lag", {"lag": 4}),
            ("the same with --cut sequence --updates 8000", "lag", {"lag": 4, "cut": "sequence", "updates": 8000}),
            ("stateful --lag 6: the first hand-over is right", "stateful", {"lag": 6}),
        )
        for axes, (title, mode, options) in zip(panels, runs, strict=True):
            draw_by_chunk(axes, trained(folder, title, mode, **options).read_result())
            axes.set_title(title, fontsize=10)
            axes.label_outer()
        figure.savefig(DOCS / "by_chunk.png", dpi=120)


if __name__ == "__main__":
    main()
