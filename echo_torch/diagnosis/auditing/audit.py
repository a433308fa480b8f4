"""A callback that watches a training: does each chunk begin where the lane's state ends?"""

from __future__ import annotations

from pytorch_lightning import Callback

from echo_torch.diagnosis.auditing.audit_body import StateAuditBody


class StateAudit(StateAuditBody, Callback):
    """Compares where each lane's carried state ends with where the lane's next chunk begins.

    It finds skipped and repeated steps, a sequence carried into another, a batch with other lanes, and a state that
    a validation, the sanity check or anybody else wrote between two training batches. It works with any module whose
    batches say where they stand:

        Trainer(callbacks=[StateAudit("raise", stamps=lambda batch: Stamps(step=batch["position"]))])

    Where no `Carry` tells which lanes start, it looks at what enters the module's recurrent layers of torch.nn: a lane
    whose state is empty there, None or zeros, begins and has no gap. A lane of which the stamps say that it starts, and
    in which the state of the batch before enters all the same, is compared as any other. A batch of which none of these
    layers reads anything, though they have read others, moves no lane. States are compared by value.

    >>> StateAudit("count").num_faults
    0

    Args:
        policy: "raise" stops at the first fault with a StateError, "warn" gives one StateWarning for each kind of
            fault, "count" says nothing. Under "raise" and "warn" a StateNote tells once of each of `notes`.
        stamps: batch -> `Stamps`, of which step, sequence and starts are looked at.
        state: module -> the carried state, a tensor or any nesting of tuples, lists and dicts of tensors; None where
            the lanes begin without one. Left out, it is the module's `carry`; needed where the module has none and its
            state is not that of a recurrent layer of torch.nn.

    Attributes:
        gaps: How often each gap occurred between two chunks; 0 is right, "other" counts hand-overs into another
            sequence. While training these are the lanes of this process, afterwards those of all.
        num_faults: How often something was wrong, lanes counted one by one; of all processes as `gaps`.
        notes: Sentences on what is no fault but worth knowing: no state is carried, or it cannot be seen.

    Raises:
        RuleError: If the policy is unknown. From the training, if a batch is no `Chunk` and `stamps` is left out.
        StateError: From the training, under the policy "raise".
    """
