"""Train one experiment of the tutorial: `python train.py --mode lag` is `python -m echo_torch train --mode lag`."""

import sys

from echo_torch.cli import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
