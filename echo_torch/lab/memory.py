"""Where the memory does not suffice: what was asked of it, in a sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration, count_parameters, network_in_words, symbol_size
from echo_torch.experiments.options import is_own_model

# Python, numpy, torch on the CPU and on a GPU, C++, and the system's loader and threads each say it in their own way.
_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
)
_BYTES_TO_TRAIN = 16  # of a parameter: itself, its gradient and two moments, each of four bytes


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that the memory does not suffice."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, (RuntimeError, OSError, ImportError)) and any(w in str(error).lower() for w in _WORDS)


@contextlib.contextmanager
def in_a_sentence(
    configuration: Configuration, kept: Callable[[str], str] = lambda sentence: sentence
) -> Iterator[None]:
    """Say what a run asked of the memory, where that does not suffice.

    Args:
        configuration: Of the run.
        kept: The sentence, ending without what is kept of the run -> with it.

    Raises:
        UserError: In place of whatever says that there is no memory left.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        error.__traceback__ = None  # its frames hold what fills the memory
        what = f"The memory does not suffice for {asked_of_it(configuration)}."
        raise UserError(kept(what), _way_out(configuration)) from None


def asked_of_it(c: Configuration) -> str:
    """What a run needs memory for."""
    rows, columns = c.reading.chunk_shape
    number = count_parameters(c)
    network = network_in_words(c)
    if number is not None:
        network += f" and {number:,} parameters, {size_in_words(_BYTES_TO_TRAIN * number)} to train"
    chunk = f"chunks of {rows:,} x {columns:,} steps, in the evaluation more"
    if not is_own_model(c.model):
        chunk += f", each step {symbol_size(c):,} numbers wide"
    return f"{c.vocabulary_size:,} symbols, a network with {network}, and {chunk}"


def _way_out(c: Configuration) -> str:
    names = ["vocabulary_size", *([] if is_own_model(c.model) else ["hidden_size"]), *c.reading.size_options]
    digits = ", or write symbols as digits with $encoding digits" if c.encoding == "one-hot" else ""
    return f"Make {', '.join(f'${name}' for name in names[:-1])} or ${names[-1]} smaller{digits}."


def size_in_words(num_bytes: float) -> str:
    """A number of bytes, as 3.2 GB or 40.0 MB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
