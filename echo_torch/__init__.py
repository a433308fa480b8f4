"""A laboratory for recurrent networks with carried state, on PyTorch Lightning.

The wings, in the order in which data flows through them; each imports only wings below it:

    data -> models | experiments -> training | diagnosis -> lab -> inference -> cli
"""

import lazy_loader

__version__ = "0.1.0"

# The names stand in __init__.pyi; each is imported when it is first used, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
