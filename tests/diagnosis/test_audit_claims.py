"""What the stamps say, and what the training step does: the audit believes what it hears."""

import pytest
import torch
from support.foreign import LOST, RIGHT, ROWS, STATES, Own, OwnCells, batch_at, fit

from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError, StateNote, StateWarning
from echo_torch.diagnosis.stamps import Stamps

# Two sequences a row, the second from the third batch on; the middle row has one alone.
BEGINS = torch.tensor([True, False, True])
NOWHERE = torch.zeros(ROWS, dtype=torch.bool)


def sessions():
    given = [batch_at(start) for start in (0, 4, 8, 12)]
    for number, batch in enumerate(given):
        batch["sequence"] = torch.where(BEGINS, number // 2, 0)
        batch["at"] = torch.where(BEGINS[:, None], batch["at"] % 8, batch["at"])
        batch["begins"] = BEGINS if number == 2 else NOWHERE
    return given


def claiming(batch):
    return Stamps(batch["at"], batch["sequence"], starts=batch["begins"])


def claiming_by_column(batch):
    starts = torch.zeros(batch["at"].shape, dtype=torch.bool)
    starts[:, 0] = batch["begins"]
    return Stamps(batch["at"], batch["sequence"], starts=starts)


class Resetting(Own):
    def read(self, batch):
        if self.hidden is not None:
            self.hidden = tuple(field.masked_fill(batch["begins"].view(1, -1, 1), 0) for field in self.hidden)
        return super().read(batch)


class HalfResetting(Own):
    def read(self, batch):
        if self.hidden is not None:
            hidden, cell = self.hidden
            self.hidden = hidden.masked_fill(batch["begins"].view(1, -1, 1), 0), cell
        return super().read(batch)


@pytest.mark.parametrize("stamps", [claiming, claiming_by_column])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("kind", [Own, HalfResetting])
def test_a_reset_that_only_the_stamps_make_is_a_fault(kind, state, stamps):
    more = {} if state is None else {"state": state}
    with pytest.raises(StateError, match=r"begins in another sequence, at step 0, without a reset \(2 of 3 lanes\)\."):
        fit(kind(), sessions(), audit=StateAudit("raise", stamps=stamps, **more))
    audit = fit(Resetting(), sessions(), audit=StateAudit("raise", stamps=stamps, **more))
    assert (audit.gaps, audit.notes) == ({0: 2 * ROWS + 1}, [])


def test_a_reset_that_is_said_and_not_made_where_a_row_goes_on_is_none_of_its_faults():
    given = [{**batch, "sequence": NOWHERE.long(), "begins": BEGINS} for batch in RIGHT]
    assert fit(Own(), given, audit=StateAudit("raise", stamps=claiming)).gaps == {0: 3 * ROWS}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_reset_that_nobody_can_see_is_called_so(state):
    """The step may reset the lanes: it is not said that it does not."""

    class ResettingCells(OwnCells):
        def read(self, batch):
            if self.hidden is not None:
                self.hidden = self.hidden.masked_fill(batch["begins"].view(-1, 1), 0)
            return super().read(batch)

    def named(batch):
        return claiming(batch)._replace(starts=None)

    more = {} if state is None else {"state": state}
    with pytest.warns((StateWarning, StateNote)) as caught:
        fit(ResettingCells(), sessions(), audit=StateAudit("warn", stamps=named, **more))
    text = next(str(warning.message) for warning in caught if warning.category is StateWarning)
    assert "without a reset that can be seen (2 of 3 lanes)" in text
    assert text.endswith("let the stamps say so: Stamps(step=..., starts=...).")
    if state is not None:  # where it is unseen, a note tells so
        audit = fit(ResettingCells(), sessions(), audit=StateAudit("raise", stamps=claiming, **more))
        assert (audit.num_faults, audit.notes) == (0, [])


def nothing(module):
    """A loss without a gradient that moves anything."""
    return 0 * module.core.weight_hh_l0.sum()


class LeavingOut(Own):
    """Looks at some batch and does not read it."""

    def training_step(self, batch, batch_idx):
        return nothing(self) if batch["at"][0, 0] == 8 else super().training_step(batch, batch_idx)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_batch_that_the_step_does_not_read_moves_no_lane(state):
    with pytest.raises(StateError, match=r"ends at step 7 .* begins at step 12: 4 steps are skipped"):
        fit(LeavingOut(), state=state)
    audit = fit(LeavingOut(), RIGHT[:3], state=state)
    assert (audit.gaps, audit.notes) == ({0: ROWS}, [])


def test_what_is_read_after_a_batch_that_is_not_goes_on_where_the_lanes_stood():
    class Bad(Own):
        def training_step(self, batch, batch_idx):
            return nothing(self) if batch.get("is_bad") else super().training_step(batch, batch_idx)

    given = [*RIGHT[:2], {**LOST[3], "is_bad": True}, *RIGHT[2:]]
    audit = fit(Bad(), given)
    assert (audit.gaps, audit.notes) == ({0: 3 * ROWS}, [])


def test_a_compiled_or_scripted_layer_is_not_said_to_be_none():
    with pytest.warns(StateNote, match="is heard, because none is called, or only inside a compiled or scripted model"):
        fit(OwnCells(), policy="warn")
