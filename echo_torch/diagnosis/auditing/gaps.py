"""Gaps counted while training: does every lane's next chunk begin where its carried state ends?"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
from torch import Tensor

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.auditing.begun import BegunBatch
from echo_torch.diagnosis.auditing.blocks import each_of, within
from echo_torch.diagnosis.auditing.borders import (
    Border,
    Ends,
    Faults,
    Flags,
    border_of,
    ends_after,
    faults_of,
    one_column,
)
from echo_torch.diagnosis.auditing.listening import Heard
from echo_torch.diagnosis.auditing.snapshots import Snapshot
from echo_torch.diagnosis.auditing.speaking import (
    LEFT_BY_ANOTHER,
    NOT_THE_ONE_LEFT,
    OF_THE_SANITY_CHECK,
    UNKNOWN,
    Voice,
    border_in_words,
    none_is_carried,
    other_lanes,
)
from echo_torch.diagnosis.auditing.speaking import StateError as StateError
from echo_torch.diagnosis.auditing.speaking import StateNote as StateNote
from echo_torch.diagnosis.auditing.speaking import StateWarning as StateWarning
from echo_torch.diagnosis.auditing.tally import Tally
from echo_torch.diagnosis.data_path.reaching import OTHER
from echo_torch.diagnosis.stamps import Stamps, checked_places
from echo_torch.models.state import leaves_of
from echo_torch.ranks import gather, own_rank

UNSEEN: Any = object()  # a state that cannot be looked at; None says that there is none
_REMEMBERED_CHUNKS = 32
_FEW_BATCHES = 3  # after which it is said that none has begun with a state


class GapCounts:
    """Compares where each lane's carried state ends with where the lane's next chunk begins, for any training loop.

        counts = GapCounts("raise")
        for batch in loader:
            counts.look(stamps_of(batch), state)
            state = train_on(batch, state)
            counts.leave(state)

    Args:
        policy: As of `StateAudit`.

    Attributes:
        gaps: As of `StateAudit`.
        num_faults: As of `StateAudit`.
        notes: As of `StateAudit`.

    Raises:
        RuleError: If the policy is unknown.
    """

    def __init__(self, policy: str = "warn") -> None:
        self.policy = policy
        self.are_resets_told = False  # whether all resets are those that the stamps say, as a `Carry` makes them
        self._forget()

    @property
    def gaps(self) -> Counter[int | str]:
        """How often each gap occurred."""
        return self._tally.gaps

    @property
    def num_faults(self) -> int:
        """How often something was wrong."""
        return self._tally.num_faults

    @property
    def notes(self) -> list[str]:
        """What is no fault but worth knowing."""
        return self._voice.notes

    def _forget(self) -> None:
        self._tally = Tally()
        self._is_restored = False
        self._last: Ends | None = None
        self._expected: tuple[list[int], list[int]] | None = None  # first steps and sequences, if nothing is special
        self._left: Snapshot | None = None
        self._checked: Snapshot | None = None  # what the sanity check left, until the first batch
        self._batch: BegunBatch | None = None
        self._recent: deque[Stamps] = deque(maxlen=_REMEMBERED_CHUNKS)
        self._voice = Voice(self.policy)
        self.has_carried = False  # whether any lane went on
        self.takes_restored = False  # whether the next batch goes on with the state of a checkpoint, as far as is known
        self._is_unclear = False
        self._num_batches = self._num_begun_anew = 0

    def state_dict(self) -> dict[str, Any]:
        """What each rank has counted and where its lanes stand, for a checkpoint."""
        last = None if self._last is None else [values.tolist() for values in self._last]
        return {"ranks": gather({**self._tally.state_dict(), "last": last, "carried": self.has_carried})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint of as many ranks."""
        self._forget()
        ranks = state_dict["ranks"]
        own = ranks[own_rank()]
        self._tally.load(ranks)
        self.has_carried = own.get("carried", False)  # an older checkpoint does not know
        if own["last"] is not None:
            last, sequence, is_known = own["last"]
            self._last = np.array(last), np.array(sequence), np.array(is_known, dtype=np.bool_)
        self._is_restored = True

    def begin(self, checked: Snapshot | None = None) -> None:
        """Begin anew, or go on where a checkpoint was.

        Args:
            checked: The state that a sanity check has left, if it changed it.
        """
        if not self._is_restored:
            self._forget()
        self.takes_restored = self._is_restored and self.has_carried
        self._is_restored = False
        self._tally.forget_others()
        self._checked = checked

    def look(
        self,
        stamps: Stamps,
        state: Any = UNSEEN,
        *,
        is_new_pass: bool = False,
        is_settled_later: bool = False,
        is_told: bool = False,
    ) -> None:
        """Compare a batch with where the lanes stand.

        Args:
            stamps: Of the batch, before it is read.
            state: The carried state then; None where the lanes begin without one. Left out: it cannot be seen.
            is_new_pass: Whether the loader begins anew with this batch.
            is_settled_later: Whether `hear` and `settle` are going to tell which lanes go on.
            is_told: Whether a lane goes on wherever the stamps say so, with an empty state too.
        """
        self._recent.append(stamps)
        step, sequence, starts = checked_places(stamps)
        self._batch = None
        if not is_settled_later and self._goes_on(state, stamps, step, sequence, starts):
            return
        border = border_of(stamps, step, sequence, starts)
        if not is_settled_later and border.is_beginning():
            self._begin_anew(border)
            return
        nowhere = np.zeros(len(step), np.bool_)
        leaves = None if state is UNSEEN else leaves_of(state)
        said_to_start = starts if starts.ndim == 1 else starts[:, 0]
        self._batch = BegunBatch(
            border, leaves, is_new_pass, said_to_start, is_told, is_handed=nowhere, written=nowhere
        )
        self._batch.written = self._written_lanes(self._batch, state)
        if not is_settled_later:
            self.settle()

    def look_at_block(self, stamps: Stamps, state: Any = UNSEEN) -> None:
        """Compare several batches, each carried into the next, with where the lanes stand.

        Args:
            stamps: Of the block, as `within` has them.
            state: As of `look`, before its first batch.
        """
        first, *others = each_of(stamps)
        self.look(first, state, is_told=True)  # as of the others, whose states are not seen
        self._left = None  # of the states inside nothing is known
        self.has_carried |= not np.asarray(stamps.starts)[state is not UNSEEN :].all()
        found = within(stamps, self._last) if others and self._last is not None else None
        kinds = {OTHER if gap == OTHER else "gap" for gap in (found.gaps if found else ()) if gap != 0}
        if found is None or any(map(self._voice.is_awaited, kinds)):  # somebody wants to know which lane and where
            for one in others:
                self.look(one)
            return
        self._tally.own += found.gaps
        self._tally.own_faults += found.num_faults
        self._num_batches += len(others)
        self._last = found.ends
        self._recent.extend(others[-_REMEMBERED_CHUNKS:])
        self._expect()

    def _goes_on(self, state: Any, stamps: Stamps, step: Integers, sequence: Integers, starts: Flags) -> bool:
        """Whether all is as it should be and nothing special: almost every batch, at a fifth of the cost."""
        if self._expected is None or self._left is None or not self._left.is_untouched(state):
            return False
        names: Integers | None = one_column(sequence)
        resets = one_column(starts)
        if names is None or resets is None or stamps.restored is not None:
            return False
        last = step[:, -1].tolist()
        if (step[:, 0].tolist(), names.tolist()) != self._expected or any(resets.tolist()) or min(last) < 0:
            return False
        self._tally.own[0] += len(last)
        self._last = step[:, -1], names, self._last[2]  # type: ignore[index]  # there was a batch before
        self._expected = [place + 1 for place in last], self._expected[1]
        self.has_carried = True
        return True

    def _begin_anew(self, border: Border) -> None:
        """All lanes are reset and read: there is nothing to compare."""
        self._checked, self._last = None, (border.last, border.last_sequence, ~border.is_emptied)
        self._num_batches += 1
        self._expect()

    def _expect(self) -> None:
        """Work out once where the next batch begins if nothing is special."""
        assert self._last is not None
        last, sequence, is_known = self._last
        self._expected = ((last + 1).tolist(), sequence.tolist()) if is_known.all() else None

    def hear(self, heard: Heard) -> None:
        """Take note of what enters a recurrent layer, and compare the lanes at once that it shows to go on."""
        if self._batch is None:
            return
        self._check_foreign(self._batch, heard)
        self._check_writer(self._batch, heard.is_unclear)
        # What is heard counts more than what the stamps say; but what a checkpoint holds enters a layer that has left
        # nothing yet, and is not known by its values.
        unreset = heard.is_carried & self._batch.said_to_start & (not self.takes_restored)
        self._check_border(self._batch, heard.is_carried, is_sure=True, unreset=unreset)

    def settle(self, heard: Heard | None = None, *, is_connected: bool = False) -> None:
        """Compare the lanes that go on, and remember where all of them end.

        Args:
            heard: What has entered the recurrent layers in this batch; None: nothing is known of any.
            is_connected: Whether the state that was shown is known to be that of these layers.
        """
        batch, self._batch, self.takes_restored = self._batch, None, False
        if batch is None:
            return
        is_restored = batch.border.restored >= 0
        if batch.leaves is None:
            goes_on = is_restored | (heard is None and not batch.is_new_pass)
        else:
            has_state = any(isinstance(leaf, Tensor) for leaf in batch.leaves)
            goes_on = is_restored | (has_state if heard is None else batch.is_filled())
        begun = np.zeros_like(batch.is_handed)
        if heard is not None and (is_connected or batch.leaves is None):
            begun = heard.is_begun
        goes_on &= ~begun
        self._check_writer(batch, ~begun)
        self._check_border(batch, goes_on, is_sure=heard is not None)
        if heard is not None or batch.leaves is not None:
            self._look_for_carrying(batch, heard)
        self._last = ends_after(batch.border, self._last, batch.is_handed)
        self._expect()

    def skip(self) -> None:
        """Forget a batch that the training has not read: the lanes stand where they stood."""
        self._batch = None

    def leave(self, state: Any = UNSEEN, *, is_copied: bool = True) -> None:
        """Remember which state the batch left.

        Args:
            state: As of `look`.
            is_copied: Whether its values are copied; needed where somebody may write into its tensors and back.
        """
        self._left = None if state is UNSEEN else Snapshot(state, is_copied=is_copied)

    def protect(self) -> None:
        """Copy the state that was left, before a validation that may write into it and back."""
        if self._left is not None:
            self._left.copy()

    def end(self) -> None:
        """Count the lanes of all ranks. All of them must call it."""
        self._say_if_none_is_carried(1)
        self._tally.gather()

    def _written_lanes(self, batch: BegunBatch, state: Any) -> Flags:
        """Where the state that is shown is not what it should be, by value; of empty lanes nobody cares."""
        before, self._checked = self._checked or self._left, None
        batch.is_from_check = before is not self._left
        starts = batch.border.starts | (batch.border.restored >= 0)
        if batch.leaves is None or before is None or starts.all():
            return np.zeros_like(starts)
        if not batch.is_from_check and before.is_untouched(state):
            return np.zeros_like(starts)
        same = before.same_lanes(batch.leaves, batch.num_lanes)
        return batch.is_filled() & ~starts & (same if batch.is_from_check else ~same)

    def _check_writer(self, batch: BegunBatch, enters: Flags) -> None:
        """Report a state that somebody else wrote, where it enters the training."""
        if (batch.written & enters).any():
            self._report_writer(batch, OF_THE_SANITY_CHECK if batch.is_from_check else NOT_THE_ONE_LEFT)

    def _check_foreign(self, batch: BegunBatch, heard: Heard) -> None:
        if heard.is_foreign.any():
            self._report_writer(batch, OF_THE_SANITY_CHECK if self._last is None else LEFT_BY_ANOTHER)

    def _report_writer(self, batch: BegunBatch, text: str) -> None:
        if not batch.is_reported:
            batch.is_reported = True
            self._tally.own_faults += 1
            self._voice.report("writer", text)

    def _check_border(self, batch: BegunBatch, goes_on: Flags, *, is_sure: bool, unreset: Flags | bool = False) -> None:
        """Compare the lanes that go on and have not been compared yet.

        Args:
            batch: The batch.
            goes_on: Booleans (lanes,).
            is_sure: Whether their state is known not to be empty; if not, it is looked at where something is wrong.
            unreset: Booleans (lanes,): where they go on although the stamps say that they start.
        """
        border, is_restored = batch.border, batch.border.restored >= 0
        new = goes_on & ~batch.is_handed & (~border.starts | is_restored | unreset)
        faults = faults_of(border, self._last, new)
        if not (is_sure or batch.is_told) and batch.leaves is not None and (faults.num_before or faults.is_wrong.any()):
            new &= batch.is_filled() | is_restored
            faults = faults_of(border, self._last, new)
        batch.is_handed |= new
        num_right = int(np.count_nonzero(faults.is_continued & ~faults.is_wrong))
        if num_right:
            self._tally.own[0] += num_right
        if faults.num_before:
            self._tally.own_faults += abs(faults.num_before - batch.num_lanes)
            self._voice.report("lanes", other_lanes(faults.num_before, batch.num_lanes))
        if faults.is_wrong.any():
            self._report_border(batch, faults, is_sure=is_sure)

    def _report_border(self, batch: BegunBatch, faults: Faults, *, is_sure: bool) -> None:
        lanes = np.flatnonzero(faults.is_wrong)
        sizes = [OTHER if faults.is_other[lane] else int(faults.gap[lane]) for lane in lanes]
        kinds = [OTHER if size == OTHER else "gap" for size in sizes]
        self._tally.own.update(sizes)
        self._tally.own_faults += len(lanes)
        for kind in dict.fromkeys(kinds):
            # Once said is enough: the words need the reach, which takes longer than a batch.
            is_awaited = self._voice.is_awaited(kind)
            lane, number = int(lanes[kinds.index(kind)]), kinds.count(kind)
            words = self._border_in_words(batch, faults, lane, number, is_sure=is_sure) if is_awaited else ""
            self._voice.report(kind, words)

    def _border_in_words(self, batch: BegunBatch, faults: Faults, lane: int, number: int, *, is_sure: bool) -> str:
        return border_in_words(
            lane,
            ends_at=(int(faults.last[lane]), int(faults.last_sequence[lane])),
            begins_at=int(batch.border.first[lane]),
            gap=None if faults.is_other[lane] else int(faults.gap[lane]),
            lanes=(number, batch.num_lanes),
            is_new_pass=batch.is_new_pass,
            is_reset_seen=is_sure or self.are_resets_told,
            recent=self._recent,
        )

    def _look_for_carrying(self, batch: BegunBatch, heard: Heard | None) -> None:
        """Notice where no batch begins with a state, or where it is unknown what it begins with."""
        self._num_batches += 1
        self.has_carried |= bool(batch.is_handed.any())
        if heard is not None and (heard.is_unclear | heard.is_foreign).any():
            self._is_unclear = True
            is_told = batch.border.starts | (batch.border.restored >= 0)
            if batch.leaves is None and (heard.is_unknown & ~is_told).any():
                self.note("unknown", UNKNOWN)
        if self._last is not None and not batch.is_new_pass:
            is_begun = batch.border.has_read & ~batch.border.starts & ~batch.is_handed
            self._num_begun_anew += bool(is_begun.any())
        self._say_if_none_is_carried(_FEW_BATCHES)

    def _say_if_none_is_carried(self, at_least: int) -> None:
        if self._num_begun_anew and self._num_batches >= at_least and not (self.has_carried or self._is_unclear):
            self.note("carrying", none_is_carried(self._num_batches))

    def note(self, kind: str, text: str) -> None:
        """Say once what is no fault.

        Args:
            kind: What it is about.
            text: A sentence or more.
        """
        self._voice.note(kind, text)
