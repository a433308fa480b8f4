"""The same parts for projects that `import lightning as L`: its Trainer refuses modules of `pytorch_lightning`.

    import lightning as L
    from echo_torch.lightning import Carry, EchoModule, StateAudit, StateWatch, StreamData

The bodies are those of `echo_torch`; the class beneath is another. `pip install 'echo-torch[lightning]'` brings it.
"""

from __future__ import annotations

from echo_torch.diagnosis.auditing.audit_body import StateAuditBody
from echo_torch.diagnosis.state_watch_body import StateWatchBody
from echo_torch.training.bodies import EchoModuleBody, StreamDataBody
from echo_torch.training.carry import Carry

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "`echo_torch.lightning` stands on the package lightning, which is not installed: pip install "
        "'echo-torch[lightning]'. For pytorch_lightning the same names are in `echo_torch`.",
        name=error.name,
    ) from None

__all__ = ["Carry", "EchoModule", "StateAudit", "StateWatch", "StreamData"]


# The bodies are typed as standing on pytorch_lightning, where they are the same but for the name.
class EchoModule(EchoModuleBody, LightningModule):  # type: ignore[misc]
    """As `echo_torch.EchoModule`, for a Trainer of `lightning`."""


class StreamData(StreamDataBody, LightningDataModule):  # type: ignore[misc]
    """As `echo_torch.StreamData`, for a Trainer of `lightning`."""


class StateAudit(StateAuditBody, Callback):  # type: ignore[misc]
    """As `echo_torch.StateAudit`, for a Trainer of `lightning`."""


class StateWatch(StateWatchBody, Callback):  # type: ignore[misc]
    """As `echo_torch.StateWatch`, for a Trainer of `lightning`."""
