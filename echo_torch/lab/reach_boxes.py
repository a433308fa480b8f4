"""What each row reads and is asked, box by box, before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from echo_torch.data.chunk import NOT_ASKED, Chunk
from echo_torch.diagnosis.data_path.reaching import OTHER

Place = tuple[int, int]  # a step of a sequence: (sequence, step)


@dataclass(frozen=True)
class Box:
    """One column of a row: a step that passes.

    Attributes:
        column: Which one of its chunk.
        place: Its sequence and step.
        is_read: Whether its symbol is read; else it is missing.
        answer: The step whose symbol is asked there; None: nothing is asked.
        has_read: Whether the row has read that symbol since its reset.
        gap: From the step before it to this one, as of `Reach.gap`, or OTHER; None: the state begins here.
        is_border: Whether the step before it is one of an earlier chunk.
    """

    column: int
    place: Place
    is_read: bool
    answer: int | None
    has_read: bool
    gap: int | str | None
    is_border: bool

    @property
    def looks(self) -> tuple[object, ...]:
        """All that a picture of it shows: rows of different sequences can look alike."""
        return (self.column, self.place[1], self.is_read, self.answer, self.has_read, self.gap, self.is_border)


@dataclass
class _Row:
    """A row that is followed: what it has read since its reset, and where it stopped."""

    seen: set[Place] = field(default_factory=set)
    last: Place | None = None

    def read(self, chunk: Chunk, lane: int, lag: int) -> list[Box]:
        """The boxes of one chunk."""
        if chunk.starts[lane]:
            self.seen, self.last = set(), None
        sequence = int(chunk.sequence[lane])
        columns = zip(*(values[lane].tolist() for values in (chunk.step, chunk.symbols, chunk.targets)), strict=True)
        boxes: list[Box] = []
        for column, (step, symbol, target) in enumerate(columns):
            if step >= 0:
                place, answer = (sequence, step), None if target == NOT_ASKED else step - lag
                if symbol >= 0:
                    self.seen.add(place)
                has_read, gap = (sequence, step - lag) in self.seen, _gap(self.last, place)
                boxes.append(Box(column, place, symbol >= 0, answer, has_read, gap, is_border=not boxes))
                self.last = place
        return boxes


def boxes_of(chunks: Sequence[Chunk], lag: int) -> list[list[list[Box]]]:
    """The boxes of every row.

    Args:
        chunks: In the order of training, from the first.
        lag: How many steps back the answers lie.

    Returns:
        For each lane a list for each chunk.
    """
    rows = [_Row() for _ in range(len(chunks[0].symbols))]
    return [[row.read(chunk, lane, lag) for chunk in chunks] for lane, row in enumerate(rows)]


def look_alike(lanes: Sequence[Sequence[Sequence[Box]]]) -> bool:
    """Whether all rows look the same."""
    looks = [[[box.looks for box in chunk] for chunk in lane] for lane in lanes]
    return all(one == looks[0] for one in looks)


def _gap(last: Place | None, place: Place) -> int | str | None:
    if last is None:
        return None
    return place[1] - last[1] - 1 if last[0] == place[0] else OTHER
