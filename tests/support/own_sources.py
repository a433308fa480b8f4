"""Modules with a model of a user's own, written for one test."""

import sys
from pathlib import Path

GOOD = "from support.own_models import GRU\n\n\nclass Net(GRU):\n    pass\n"
WITNESS = "from pathlib import Path\n\nPath('it-was-run').touch()\n" + GOOD


def write(name, text=GOOD, folder="."):
    """A module in the current directory, to be imported anew: as if the program had just been started."""
    Path(folder, f"{name}.py").write_text(text)
    forget(name)


def forget(name):
    """Let the next import read the file."""
    sys.modules.pop(name, None)
