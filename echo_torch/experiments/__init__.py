"""What can be run, as data. Imports nothing heavy."""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
