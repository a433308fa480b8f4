"""`python -m echo_torch COMMAND`."""

from echo_torch.cli import run

run()
