"""A reach in words: the numbers as lines, and what follows from them as sentences for a beginner."""

from __future__ import annotations

from collections.abc import Mapping

from echo_torch.data.chunk_text import BETWEEN, runs_in_words
from echo_torch.diagnosis.data_path.reaching import OTHER, Reach
from echo_torch.diagnosis.stamps import whole_number
from echo_torch.errors import RuleError

_FEW_LAGS = 20  # and runs of lags that are shown one by one
_FEW_GAPS = 5


def explain(found: Reach, *, memory_length: int | None = None, is_carried: bool = True) -> str:
    """What follows from a reach: what is wrong with the data path, then whether answers were read, and how far back.

    >>> from echo_torch import Stamps, reach
    >>> batches = [[[0, 1], [4, 5]], [[3, 4], [7, 8]]]
    >>> for sentence in explain(reach(batches, lag=9, stamps=lambda batch: Stamps(step=batch))).split(". "):
    ...     print(sentence)
    A row skips 1 step at every hand-over from chunk to chunk
    A row that is asked for the symbol 9 steps ago has never read it
    Between two passes over the data the state must be reset: there a row reads 5 steps again.

    Of a gradient nothing is known here: whoever trains may detach the state wherever they like.

    Args:
        found: The reach.
        memory_length: Steps that the network is shown at once, the current one among them; None: it is recurrent.
        is_carried: Whether a state is handed from chunk to chunk.

    Raises:
        RuleError: If it is no `Reach`, or `memory_length` is no whole number of at least 1.
    """
    if not isinstance(found, Reach):
        rule = "$found must be what `reach` or `reach_of` has returned"
        raise RuleError("found", rule, type(found).__name__, way_out="write explain(reach_of(make_loader, length))")
    if memory_length is not None and (whole_number(memory_length) or 0) < 1:
        raise RuleError("memory_length", "$memory_length must be a whole number of at least 1", repr(memory_length))
    answers = _answer_sentences(found, memory_length, is_carried=is_carried)
    return " ".join([*_path_sentences(found), *answers, *_seam_sentences(found)])


def reach_lines(found: Reach) -> list[str]:
    """The numbers of a reach, for people."""
    chunks = f"{'' if found.is_whole else 'the first '}{found.chunks:,} chunk{_s(found.chunks)}"
    lines = [
        f"gap: {_gaps_in_words(found)}",
        f"reachable lags: {_lags_in_words(found.reachable_lags)}",
        f"{_answers_in_words(found)}, of {found.targets:,} targets in {chunks}",
        f"ceiling: {'unknown' if found.ceiling is None else f'{found.ceiling:.1%}'}, the best accuracy that any model "
        "could have",
    ]
    if found.seam and set(found.seam) != {0}:
        lines.insert(1, f"gap to a second pass, if no state is reset there: {_times(found.seam)}")
    if len(found.rows) > 1:
        rows = ", ".join(f"{rows} ({number:,} chunk{_s(number)})" for rows, number in found.rows.items())
        lines.insert(1, f"rows: {rows}")
    if found.empty_chunks:
        lines.append(f"empty: {_first_few(found.empty_chunks)}")
    return lines


def gap_in_words(gap: int | str) -> str:
    """What rows do where all have this gap."""
    if gap == 0:
        return "each row goes on where it stopped"
    return _jump(gap) if isinstance(gap, str) else f"{_jump(gap)} at a time"


def _jump(gap: int | str) -> str:
    """What a row does at a gap that is not 0."""
    if isinstance(gap, str):
        return "a row goes on into another sequence"
    number = f"{abs(gap):,} step{_s(gap)}"
    return f"a row skips {number}" if gap > 0 else f"a row reads {number} again"


def _s(number: int) -> str:
    return "" if abs(number) == 1 else "s"


def _first_few(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _FEW_GAPS:,} more" if len(numbers) > _FEW_GAPS else ""
    return f"chunk{_s(len(numbers))} {', '.join(map(str, numbers[:_FEW_GAPS]))}{more}"


def _times(gaps: Mapping[int | str, int]) -> str:
    """The commonest gaps: "5 (74 times), -1 (once)"."""
    commonest = sorted(gaps.items(), key=lambda item: (-item[1], str(item[0])))
    words = [f"{gap} ({_often(number)})" for gap, number in commonest[:_FEW_GAPS]]
    if len(gaps) > _FEW_GAPS:
        words.append(f"and {len(gaps) - _FEW_GAPS:,} other gaps")
    return ", ".join(words)


def _often(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _gaps_in_words(found: Reach) -> str:
    total = sum(found.gaps.values())
    if not total:
        return "none, nothing is handed over"
    if "shuffled" in found.faults:
        jumps = {gap: number for gap, number in found.gaps.items() if gap != 0}
        number = sum(jumps.values())
        return (
            f"shuffled, {number:,} of {total:,} hand-overs jump ({number / total:.1%}), by {len(jumps):,} different "
            f"gaps; the commonest: {_times(jumps)}"
        )
    usual = max(found.gaps, key=lambda gap: found.gaps[gap])
    number = found.gaps[usual]
    if number == total:
        return f"{usual}, {gap_in_words(usual)} ({total:,} hand-over{_s(total)})"
    rare = {gap: times for gap, times in found.gaps.items() if gap != usual}
    return f"{usual} at {number:,} of {total:,} hand-overs ({share_in_words(number, total)}); else {_times(rare)}"


def share_in_words(number: int, total: int, least: int = 1) -> str:
    """A share that is neither nothing nor all, which its rounding must not hide.

    >>> share_in_words(1, 100), share_in_words(1, 100, least=2), share_in_words(1, 10**6)
    ('1.0%', '1.00%', '0.0001%')

    Args:
        number: How many.
        total: Of how many.
        least: Digits behind the point, where so many show it.
    """
    for digits in range(least, 11):
        text = f"{number / total:.{digits}%}"
        if text.strip("0.%") and not text.startswith("100"):
            return text
    return f"{number / total:.1%}"


def _lags_in_words(lags: list[int]) -> str:
    words = runs_in_words(lags, _FEW_LAGS)
    return f"{words} ({len(lags):,} of them)" if BETWEEN in words else words


def _answers_in_words(found: Reach) -> str:
    if found.targets and found.reachable_share is None:
        return "answers: unknown, because neither a lag nor their places are given"
    shares = ["-" if share is None else f"{share:.1%}" for share in (found.reachable_share, found.in_horizon_share)]
    lag = "" if found.lag is None else f" (lag {found.lag})"
    before = ""
    if found.before_start and _is_all_but_the_beginning(found):
        before = f", before their row begins: {share_in_words(found.before_start, found.targets)}"
    return f"answers{lag} read before: {shares[0]}, within the same chunk: {shares[1]}{before}"


def _path_sentences(found: Reach) -> list[str]:
    """What is wrong with the data path, one sentence each; none where each row goes on where its state ended."""
    faults, sentences = found.faults, []
    if "rows-changed" in faults:
        sizes = " and ".join(map(str, found.rows)) if len(found.rows) < _FEW_GAPS else f"{len(found.rows)} sizes"
        sentences.append(
            f"The number of rows changes without a reset ({sizes}; {_often(found.row_changes)}, first "
            f"at chunk {found.first_row_change}), and a state fits no other number of rows."
        )
    if "other-sequence" in faults:
        sentences.append(f"{_where(found, [OTHER])} {_jump(OTHER)} without a reset.")
    jumps = [gap for gap in found.gaps if isinstance(gap, int) and gap != 0]
    if "shuffled" in faults:
        sentences.append(
            f"The chunks are shuffled: {_where(found, jumps).lower()} a row jumps, by {len(jumps):,} different gaps."
        )
    for fault, gaps in (
        ("rows-skip", [gap for gap in jumps if gap > 0]),
        ("rows-reread", [gap for gap in jumps if gap < 0]),
    ):
        if fault in faults:
            sentences.append(_jump_sentence(found, gaps))
    return sentences


def _seam_sentences(found: Reach) -> list[str]:
    jumps = {gap: number for gap, number in (found.seam or {}).items() if gap != 0}
    if not jumps or "shuffled" in found.faults:
        return []
    usual = max(jumps, key=lambda gap: jumps[gap])
    return [f"Between two passes over the data the state must be reset: there {_jump(usual)}."]


def _jump_sentence(found: Reach, gaps: list[int]) -> str:
    where = _where(found, gaps)
    where = where[:1].lower() + where[1:]
    if len(gaps) == 1:
        return f"{_jump(gaps[0])[:1].upper()}{_jump(gaps[0])[1:]} {where}."
    does = "skips steps" if gaps[0] > 0 else "reads steps again"
    commonest = max(gaps, key=lambda gap: found.gaps[gap])
    return f"A row {does} {where}, most often {abs(commonest):,}."


def _where(found: Reach, gaps: list[int] | list[str]) -> str:
    """At how many hand-overs there are these gaps: of those between chunks, if they occur nowhere else."""
    number, at_borders = (sum(counts.get(gap, 0) for gap in gaps) for counts in (found.gaps, found.borders))
    is_at_borders = number == at_borders
    total = sum((found.borders if is_at_borders else found.gaps).values())
    of_what = "from chunk to chunk" if is_at_borders else "inside the chunks and between them"
    if not at_borders:
        of_what = "inside the chunks"
    if number == total:
        return f"At every hand-over {of_what}"
    return f"At {number:,} of {total:,} hand-overs {of_what} ({share_in_words(number, total)})"


def _answer_sentences(found: Reach, memory_length: int | None, *, is_carried: bool) -> list[str]:
    """Whether answers were read before, then how far back."""
    if not found.targets:
        return ["Nothing is asked in these chunks, so there is nothing to learn."]
    if found.reachable_share is None or found.in_horizon_share is None:
        return [*_healthy(found), "Neither a lag nor the places of answers are given, so gaps are all that is known."]
    best = "" if found.ceiling is None else f", so no training can get beyond {found.ceiling:.1%} on these"
    if found.reachable_share == 0:
        return [f"A row that is asked for {_what(found)} has never read it{best}."]
    horizon = _horizon(found, memory_length, is_carried=is_carried)
    if _is_all_but_the_beginning(found):
        but = ""
        if found.before_start:
            share = share_in_words(found.before_start, found.targets)
            but = f", but for {share} of the targets, which ask for what lies before their row begins"
        return [f"Every answer was read before by the row that is asked for it{but}.", horizon]
    share = share_in_words(round(found.reachable_share * found.targets), found.targets)
    return [
        f"Only for {share} of the targets the answer was read before by the row that is asked for it{best}.",
        horizon,
    ]


def _is_all_but_the_beginning(found: Reach) -> bool:
    """Whether all answers were read but those that lie before a row begins."""
    return round((found.reachable_share or 0) * found.targets) == found.targets - found.before_start


def _healthy(found: Reach) -> list[str]:
    if found.faults:
        return []
    number = sum(found.gaps.values())
    if not number:
        return ["Nothing is handed over: each chunk begins anew, and a row reads one step."]
    return [f"Each row goes on where it stopped ({number:,} hand-over{_s(number)})."]


def _what(found: Reach) -> str:
    if found.lag is None:
        return "an answer"
    return "the symbol just read" if found.lag == 0 else f"the symbol {found.lag} step{_s(found.lag)} ago"


def _horizon(found: Reach, memory_length: int | None, *, is_carried: bool) -> str:
    if memory_length is not None:
        is_shown = found.lag is not None and memory_length > found.lag
        among = "among them, so no gradient has to cross a chunk" if is_shown else "not among them"
        shown = "the current symbol" if memory_length == 1 else f"the last {memory_length} symbols"
        return f"This network is shown {shown}, and the answer is {among}."
    share = (found.in_horizon_share or 0) / (found.reachable_share or 1)
    if share == 1:
        in_the_way = ", and whether what is handed over gets in its way" if is_carried else ""
        return (
            "It was read within the same chunk, so nothing need be handed over for it; whether the state has room for "
            f"it{in_the_way}, training shows."
        )
    if share == 0:
        return (
            "It was always read in an earlier chunk: if the state is detached between chunks, nothing shapes it for "
            "the answer, and whether it is kept all the same, training shows."
        )
    return (
        f"{share:.1%} of these were read within the same chunk, and what is learned from them can serve the others, "
        "which the state must bring along."
    )
