"""Runs under anyone's Trainer: the module that carries state, what it reads, what it leaves."""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
