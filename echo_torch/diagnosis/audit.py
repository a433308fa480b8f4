"""A callback that watches a training: does each chunk begin where the lane's state ends?"""

from __future__ import annotations

from pytorch_lightning import Callback

from echo_torch.diagnosis.audit_body import StateAuditBody


class StateAudit(StateAuditBody, Callback):
    """Compares where each lane's carried state ends with where the lane's next chunk begins.

    It finds skipped and repeated steps, a sequence carried into another, a batch with other lanes, and a state that
    somebody wrote between two training batches. It works with any module whose batches say where they stand:

        Trainer(callbacks=[StateAudit("raise", stamps=lambda batch: Stamps(step=batch["position"]))])

    >>> StateAudit("count").num_faults
    0

    Args:
        policy: "raise" stops at the first fault with a StateError, "warn" gives one StateWarning for each kind of
            fault, "count" says nothing.
        stamps: batch -> `Stamps`, of which step, sequence and starts are looked at.
        state: module -> the carried state, or None where there is none to look at. The check that nobody else
            writes it compares identity: give a function that returns the same object while nothing is assigned.

    Attributes:
        gaps: How often each gap occurred between two chunks; 0 is right, "other" counts hand-overs into another
            sequence. While training these are the lanes of this process, afterwards those of all.
        num_faults: How often something was wrong, lanes counted one by one; of all processes as `gaps`.

    Raises:
        RuleError: If the policy is unknown.
        StateError: From the training, under the policy "raise".
    """
