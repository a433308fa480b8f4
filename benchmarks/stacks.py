"""How much cheaper many trainings are side by side than each alone: model-updates per second beside bare loops."""
