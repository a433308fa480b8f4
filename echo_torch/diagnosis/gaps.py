"""Gaps counted while training: does every lane's next chunk begin where its carried state ends?"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echo_torch.data.random_symbols import Integers
from echo_torch.diagnosis.data_path import OTHER, reach
from echo_torch.diagnosis.stamps import Stamps, checked_places
from echo_torch.errors import RuleError
from echo_torch.ranks import gather, own_rank

POLICIES = ("raise", "warn", "count")
_REMEMBERED_CHUNKS = 32


class StateError(RuntimeError):
    """A lane's carried state belongs to another place than its next chunk."""


class StateWarning(UserWarning):
    """A lane's carried state belongs to another place than its next chunk, and the training goes on."""


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

    Raises:
        RuleError: If the policy is unknown.
    """

    def __init__(self, policy: str = "warn") -> None:
        if policy not in POLICIES:
            raise RuleError("policy", f"$policy must be one of {', '.join(POLICIES)}", repr(policy))
        self.policy = policy
        self._forget()

    @property
    def gaps(self) -> Counter[int | str]:
        """How often each gap occurred."""
        return sum((gaps for gaps, _ in self._others), self._gaps.copy())

    @property
    def num_faults(self) -> int:
        """How often something was wrong."""
        return self._faults + sum(faults for _, faults in self._others)

    def _forget(self) -> None:
        self._gaps: Counter[int | str] = Counter()
        self._faults = 0
        self._others: list[tuple[Counter[int | str], int]] = []  # of the other ranks
        self._is_restored = False
        self._last: tuple[Integers, Integers, NDArray[np.bool_]] | None = None
        self._expected: tuple[list[int], list[int]] | None = None  # first steps and sequences, if nothing is special
        self._left: Any = None
        self._recent: deque[Stamps] = deque(maxlen=_REMEMBERED_CHUNKS)
        self._said: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """What each rank has counted and where its lanes stand, for a checkpoint."""
        last = None if self._last is None else [values.tolist() for values in self._last]
        return {"ranks": gather({"gaps": list(self._gaps.items()), "faults": self._faults, "last": last})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint of as many ranks."""
        self._forget()
        ranks = state_dict["ranks"]
        own = ranks[own_rank()]
        self._gaps, self._faults = Counter(dict(own["gaps"])), own["faults"]
        self._take_others([(rank["gaps"], rank["faults"]) for rank in ranks], own_rank())
        if own["last"] is not None:
            last, sequence, is_known = own["last"]
            self._last = np.array(last), np.array(sequence), np.array(is_known, dtype=np.bool_)
        self._is_restored = True

    def begin(self) -> None:
        """Begin anew, or go on where a checkpoint was."""
        if not self._is_restored:
            self._forget()
        self._is_restored = False
        self._others = []

    def look(self, stamps: Stamps, state: Any) -> None:
        """Compare a batch with where the lanes stand.

        Args:
            stamps: Of the batch, before it is read.
            state: The carried state then; None where there is none to look at.
        """
        self._recent.append(stamps)
        step, sequence, starts = checked_places(stamps)
        if self._goes_on(state, step, sequence, starts):
            return
        first, last, has_read = _ends(step)
        if self._last is not None:
            self._check_writer(state, starts)
            self._check_border(first, sequence, starts, has_read)
        self._last = self._merge(last, sequence, starts, has_read)
        is_known = self._last[2]
        self._expected = ((self._last[0] + 1).tolist(), self._last[1].tolist()) if is_known.all() else None

    def _goes_on(self, state: Any, step: Integers, sequence: Integers, starts: NDArray[np.bool_]) -> bool:
        """Whether all is as it should be and nothing special: almost every batch, at a fifth of the cost."""
        if self._expected is None or state is not self._left:
            return False
        last = step[:, -1].tolist()
        if (step[:, 0].tolist(), sequence.tolist()) != self._expected or any(starts.tolist()) or min(last) < 0:
            return False
        self._gaps[0] += len(last)
        self._last = step[:, -1], sequence, self._last[2]  # type: ignore[index]  # there was a batch before
        self._expected = [place + 1 for place in last], self._expected[1]
        return True

    def leave(self, state: Any) -> None:
        """Remember which state the batch left."""
        self._left = state

    def end(self) -> None:
        """Count the lanes of all ranks. All of them must call it."""
        self._take_others(gather((list(self._gaps.items()), self._faults)), own_rank())

    def _take_others(self, ranks: Sequence[tuple[Sequence[tuple[int | str, int]], int]], own: int) -> None:
        self._others = [(Counter(dict(gaps)), faults) for rank, (gaps, faults) in enumerate(ranks) if rank != own]

    def _check_writer(self, state: Any, starts: NDArray[np.bool_]) -> None:
        if self._left is not None and state is not self._left and not starts.all():
            self._report(
                "writer",
                1,
                "The carried state is not the one that the last training batch left: something else wrote it in "
                "between, such as a validation on the same state. Keep a state for each, or save and restore it.",
            )

    def _check_border(
        self,
        first: Integers,
        sequence: Integers,
        starts: NDArray[np.bool_],
        has_read: NDArray[np.bool_],
    ) -> None:
        assert self._last is not None
        last, last_sequence, is_known = self._last
        if len(last) != len(first):
            if not starts.all():
                self._report(
                    "lanes",
                    abs(len(last) - len(first)),
                    f"The batch has {len(first)} lanes but the carried state has {len(last)}; a state that is cut or "
                    "filled up belongs to nobody. Keep the number of rows, and leave rows unused.",
                )
            return
        gap = first - last - 1
        is_continued = is_known & ~starts & has_read
        is_other = (sequence != last_sequence) & is_continued
        wrong = (gap != 0) & is_continued | is_other
        num_continued, num_wrong = int(np.count_nonzero(is_continued)), int(np.count_nonzero(wrong))
        if num_continued > num_wrong:
            self._gaps[0] += num_continued - num_wrong
        if num_wrong:
            self._report_border(np.flatnonzero(wrong), first, gap, is_other)

    def _report_border(self, lanes: Integers, first: Integers, gap: Integers, is_other: NDArray[np.bool_]) -> None:
        assert self._last is not None
        last, last_sequence, _ = self._last
        kinds = [OTHER if is_other[lane] else int(gap[lane]) for lane in lanes]
        self._gaps.update(kinds)
        lane, kind = int(lanes[0]), kinds[0]
        # Once said is enough: the text needs the reach, which takes longer than a batch.
        if str(kind) in self._said and self.policy != "raise":
            self._faults += len(lanes)
            return
        lags = ", ".join(map(str, reach(self._recent, 0, stamps=lambda stamps: stamps).reachable_lags[:10]))
        if kind == OTHER:
            what = f"its next chunk begins in another sequence, at step {first[lane]}, without a reset"
        else:
            assert isinstance(kind, int)
            number = f"{abs(kind)} step{'s' * (abs(kind) > 1)}"
            passed = f"{number} {'is' if abs(kind) == 1 else 'are'} {'skipped' if kind > 0 else 'read twice'}"
            what = f"its next chunk begins at step {first[lane]}: {passed}"
        others = f" ({len(lanes)} of {len(first)} lanes)" if len(lanes) > 1 else ""
        self._report(
            str(kind),
            len(lanes),
            f"Lane {lane}'s carried state ends at step {last[lane]} of sequence {last_sequence[lane]}, so step "
            f"{last[lane] + 1} is expected, but {what}{others}. Lags that the rows have reached so far: {lags}.",
        )

    def _merge(
        self, last: Integers, sequence: Integers, starts: NDArray[np.bool_], has_read: NDArray[np.bool_]
    ) -> tuple[Integers, Integers, NDArray[np.bool_]]:
        """Where the lanes end: those that read nothing keep their place, unless they were reset."""
        if self._last is None or len(self._last[0]) != len(last):
            return last, sequence, has_read
        before, before_sequence, was_known = self._last
        is_known = np.where(has_read, True, was_known & ~starts).astype(np.bool_)
        return np.where(has_read, last, before), np.where(has_read, sequence, before_sequence), is_known

    def _report(self, kind: str, number: int, text: str) -> None:
        self._faults += number
        if self.policy == "raise":
            raise StateError(text)
        if self.policy == "warn" and kind not in self._said:
            warnings.warn(text, StateWarning, stacklevel=2)
        self._said.add(kind)


def _ends(step: Integers) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """First and last step of each lane, and whether it reads at all."""
    is_place = step >= 0
    rows = np.arange(len(step))
    first = step[rows, is_place.argmax(axis=1)]
    last = step[rows, step.shape[1] - 1 - is_place[:, ::-1].argmax(axis=1)]
    return first, last, np.logical_or.reduce(is_place, axis=1)
