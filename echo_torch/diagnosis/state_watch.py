"""A callback for anyone's code: what does a fit do with the states of its recurrent layers?"""

from __future__ import annotations

from pytorch_lightning import Callback

from echo_torch.diagnosis.state_watch_body import StateWatchBody


class StateWatch(StateWatchBody, Callback):
    """Watches a whole fit as `watch` does, and says at its end what was seen, on standard error.

        Trainer(callbacks=[StateWatch()])

    StateWatch is for anyone's code: it needs no word about the data, says what it cannot see, and stops nothing.
    `StateAudit`, with its policies, is for where stamps exist: it compares each batch with them, can stop the training
    at the first fault, and counts on through checkpoints.

    Validation inside the fit, the sanity check too, counts as evaluation. The watch ends with the fit, also after an
    exception, and reports what was seen until then. Checkpoints hold nothing of it. A further fit is watched anew. Of
    several processes each watches its own rows; the first one alone reports, of its own.

    >>> seen = StateWatch(updates=20)
    >>> seen.faults, seen.unknown
    ([], ['No fit has been watched yet.'])

    Args:
        updates: As of `watch`.
        intended: As of `watch`.
        stamps: batch -> the tensor of the batch that the model reads, (lanes, steps, ...), and its `Stamps`; or None
            where the batch has none. Left out, those of this project's `Chunk`; the rows of any other batch are
            followed back to where they come from, as far as that is possible.

    Attributes:
        seen: The watch over the last fit, with `reach` and all that `watch` tells; None before the first.
        findings: The faults that were seen in the last fit.
        intended: Findings of kinds that are meant to be so.
        unknown: What could not be seen, in sentences.

    Raises:
        RuleError: If `updates` is below 1, `intended` holds what is no kind, or `stamps` is no function.
    """
