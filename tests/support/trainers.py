"""Trainers that write and draw nothing."""

import pytorch_lightning as pl


def quiet_trainer(**options):
    """A Trainer on the CPU, silent but for what the options say."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(**{"accelerator": "cpu", "enable_model_summary": False, **silent, **options})
