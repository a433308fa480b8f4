"""What the audit says of modules of other people that is no fault, and how often it speaks."""

import warnings

import pytest
import torch
from support.foreign import LOST, ROWS, STATES, WIDTH, Own, OwnCells, batch_at, batches, fit
from torch import nn

from echo_torch import Stamps
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError, StateNote, StateWarning


class Windows(Own):
    """Truncated backpropagation by hand: each step reads whole texts, cut into windows."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        state = None
        for window in batch["x"].split(2, dim=1):
            output, state = self.core(window, state)
            state = tuple(field.detach() for field in state)
            self.optimizers().zero_grad()
            self.manual_backward(output.square().mean())
            self.optimizers().step()


class LearnedFirstState(Own):
    def __init__(self):
        super().__init__()
        self.core = nn.GRU(1, WIDTH, batch_first=True)
        self.first = nn.Parameter(torch.ones(1, 1, WIDTH))

    def read(self, batch):
        return self.core(batch["x"], self.first.expand(1, ROWS, WIDTH).contiguous())[0]


class Translator(Own):
    """The decoder begins with what the encoder has left, in each batch anew."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(1, WIDTH, batch_first=True)

    def read(self, batch):
        return self.core(batch["x"], self.encoder(batch["x"])[1])[0]


@pytest.mark.parametrize("kind", [Windows, LearnedFirstState, Translator])
def test_a_training_that_carries_no_state_is_told_so_once(kind):
    texts = batches(0, 0, 0, 0, 0)
    for policy in ("warn", "raise"):
        with pytest.warns(StateNote, match="No state is carried: none of the 3 batches so far") as caught:
            audit = fit(kind(), texts, policy)
        assert len([warning for warning in caught if issubclass(warning.category, StateNote)]) == 1
        assert audit.num_faults == 0
        assert len(audit.notes) == 1
    with pytest.warns(StateNote, match="none of the 2 batches so far"):
        fit(kind(), texts[:2])
    silent = fit(kind(), texts, "count")
    assert len(silent.notes) == 1
    assert fit(kind(), texts[:1]).notes == []


def test_where_the_stamps_say_that_each_batch_starts_nothing_is_said():
    audit = StateAudit("raise", stamps=lambda batch: Stamps(batch["at"], starts=torch.ones(ROWS, dtype=torch.bool)))
    assert fit(Windows(), batches(0, 0, 0, 0), audit=audit).notes == []


def test_a_state_that_cannot_be_seen_is_told_so_once():
    with pytest.warns(StateNote, match=r"cannot be seen.*StateAudit\(state=lambda module: module.hidden\)") as caught:
        audit = fit(OwnCells(), epochs=2)
    assert len([warning for warning in caught if warning.category is StateNote]) == 1
    assert audit.gaps == {0: 2 * 3 * ROWS}  # the border between two passes is left out
    assert audit.num_faults == 0
    with pytest.warns(StateNote), pytest.raises(StateError, match="4 steps are skipped"):
        fit(OwnCells(), LOST)
    assert fit(OwnCells(), state=STATES["shown"]).notes == []
    with pytest.raises(StateError, match="new pass of the loader"):
        fit(OwnCells(), epochs=2, state=STATES["shown"])


def test_a_state_that_is_neither_empty_nor_what_was_left_is_told_so_once():
    class Drawn(Own):
        def read(self, batch):
            return self.core(batch["x"], (torch.randn(1, ROWS, WIDTH), torch.randn(1, ROWS, WIDTH)))[0]

    with pytest.warns(StateNote, match="it is unknown whether it is carried") as caught:
        audit = fit(Drawn(), LOST)
    assert len([warning for warning in caught if warning.category is StateNote]) == 1
    assert audit.gaps == {}


def test_a_state_that_is_changed_on_its_way_is_followed_where_it_is_shown():
    class Fading(Own):
        def read(self, batch):
            if self.hidden is not None:
                self.hidden = tuple(field * 0.9 for field in self.hidden)
            return super().read(batch)

    assert fit(Fading(), state=STATES["shown"]).gaps == {0: 3 * ROWS}
    with pytest.raises(StateError, match="4 steps are skipped"):
        fit(Fading(), LOST, state=STATES["shown"])


def test_one_warning_for_all_sizes_of_gaps():
    given = batches(*(4 * number for number in torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()))
    with pytest.warns(StateWarning, match="steps are") as caught:
        audit = fit(Own(), given, "warn")
    assert len(caught) == 1
    assert len(audit.gaps) > 20
    assert audit.num_faults == sum(number for gap, number in audit.gaps.items() if gap)


def test_gaps_and_other_sequences_have_a_warning_each():
    def named(batch):
        return Stamps(batch["at"], sequence=torch.tensor([0, batch["other"], 0]))

    given = [batch_at(4 * number, other=other) for number, other in ((0, 0), (2, 1), (3, 0), (5, 1))]
    with pytest.warns(StateWarning) as caught:
        audit = fit(Own(), given, audit=StateAudit("warn", stamps=named))
    assert ["another sequence" in str(warning.message) for warning in caught] == [False, True]
    assert audit.gaps == {4: 4, "other": 3, 0: 2}


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (
            [torch.zeros(3, 5), torch.zeros(3)],
            r"a list of 2 tensors; .*`StateAudit\(stamps=lambda batch: Stamps\(step=batch\[0\]",
        ),
        ({"x$": torch.zeros(3, 5)}, r'a dict with x\$; .*Stamps\(step=batch\["position"\]\)'),
        (torch.zeros(3, 5), r"a tensor of shape \(3, 5\); .*Stamps\(step=batch\[0\]\)"),
    ],
)
def test_a_batch_without_stamps_is_told_what_is_missing(batch, line):
    with pytest.raises(ValueError, match=f"`stamps` must say where the rows of each batch stand.* Got {line}"):
        fit(Own(), [batch], audit=StateAudit())


def test_an_error_of_ones_own_stamps_is_ones_own():
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="place"):
        fit(Own(), audit=StateAudit(stamps=lambda batch: batch.place))
