"""Lightning's Trainer as this project's runs use it: deaf to the environment."""

from __future__ import annotations

import inspect
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import ClusterEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.utilities import rank_zero_only

from echo_torch.ranks import launch


def plain_trainer(**options: Any) -> pl.Trainer:
    """A Trainer of these options, and of Lightning's own defaults for all others.

    Lightning takes what is not given from variables such as PL_TRAINER_FAST_DEV_RUN: of a run nobody could tell
    afterwards. And it looks for a launcher by itself, by other rules than `echo_torch.ranks` has.

    Args:
        options: As of pl.Trainer.
    """
    defaults = {name: value.default for name, value in inspect.signature(pl.Trainer).parameters.items()}
    ranks = OwnRanks()
    rank_zero_only.rank = ranks.global_rank()  # type: ignore[attr-defined]  # Lightning guessed it when it was imported
    return pl.Trainer(**{**defaults, **options, "plugins": [*(options.get("plugins") or []), ranks]})


class OwnRanks(ClusterEnvironment):
    """Tells Lightning which process this is, as `echo_torch.ranks` knows it."""

    creates_processes_externally = True

    def __init__(self) -> None:
        super().__init__()
        self._own = launch()

    @property
    def main_address(self) -> str:
        """Where the first process can be reached."""
        return "127.0.0.1" if self._own is None else self._own.address

    @property
    def main_port(self) -> int:
        """The same."""
        return 0 if self._own is None else self._own.port

    @staticmethod
    def detect() -> bool:
        """It is given, never looked for."""
        return False

    def world_size(self) -> int:
        """How many processes train together."""
        return 1 if self._own is None else self._own.num_ranks

    def set_world_size(self, size: int) -> None:
        """The launcher has set it."""

    def global_rank(self) -> int:
        """This process among all."""
        return 0 if self._own is None else self._own.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has set it."""

    def local_rank(self) -> int:
        """This process on its machine."""
        return 0 if self._own is None else self._own.local_rank

    def node_rank(self) -> int:
        """Nothing here depends on the machine's number."""
        return 0
