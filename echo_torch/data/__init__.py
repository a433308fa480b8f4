"""What is read, and where it stands: symbols, windows and lanes, chunks, the stream. Knows no model."""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
