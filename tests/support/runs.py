"""Short runs."""

from echo_torch import configure


def short(mode="lag", **options):
    """A run of a second or two on the CPU, with rows and checkpoints often enough to stop between them."""
    often = {"updates": 24, "log_every": 4, "checkpoint_every": 6, "accelerator": "cpu"}
    return configure(mode, **{**often, **options})
