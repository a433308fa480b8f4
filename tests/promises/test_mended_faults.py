"""The mended twins of benchmarks/faults are cured: what each state has read since it was empty shows it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from score import CASES, FAULTS
from support import lineages


@dataclass(frozen=True)
class Cure:
    """What is so in a twin, and what the faulty case shows in its place.

    Args:
        states: How many states begin empty.
        steps: How many steps they read, all together.
        shows: What is wrong in the case.
        begins: At which steps of their sequences they begin.
        with_graph: Calls whose state has a graph: those inside a chunk that is read step by step.
    """

    states: int
    steps: int
    shows: str
    begins: tuple[int, ...] = (0,)
    with_graph: int = 0


CURES = {
    "01_one_step_windows": Cure(25, 900, "no run", tuple(range(0, 900, 36))),
    "02_shuffled_chunks": Cure(4, 1440, "no run", (0, 360, 720, 1080)),
    "03_hidden_on_self_graph": Cure(180, 1620, "graph"),
    "04_fixed_batch_size_state": Cure(403, 4030, "error"),
    "05_batch_first_forgotten": Cure(7, 196, "states", tuple(range(0, 210, 30))),
    "06_view_not_transpose": Cure(2400, 14400, "no run"),
    "09_tuple_not_detached": Cure(4, 1200, "graph"),
    "10_silent_stateful_encoder": Cure(180, 1440, "no run"),
    "12_reset_one_batch_late": Cure(21, 144, "no run"),
    "14_no_reset_at_done": Cure(60, 576, "no run", with_graph=160),
    "15_interleaved_streams": Cure(6, 510, "no run"),
    "16_padding_in_the_answer": Cure(120, 1496, "no run"),
    "17_c_becomes_h": Cure(4, 749, "from nowhere"),
    "18_state_not_fed_back": Cure(1, 40, "states"),
    "19_two_streams_one_model": Cure(2, 40, "no run"),
    "22_resume_mid_epoch": Cure(4, 960, "states"),
    "23_detached_at_every_step": Cure(4, 1200, "graph", with_graph=270),
    "24_cached_hidden_validation": Cure(40, 2000, "no run"),
    "26_detach_result_dropped": Cure(4, 1200, "graph"),
}
# Each runs two programs under a tracer: with ALL_CLAIMS=1 all, else a quarter.
SOME = list(CURES)[:: 1 if os.environ.get("ALL_CLAIMS") == "1" else 4]


def test_each_twin_is_looked_at():
    assert set(CURES) == {path.stem for path in (FAULTS / "mended").glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_a_twin_runs_and_is_cured_of_what_its_case_shows(name, tmp_path):
    cure = CURES[name]
    twin, case = heard_in([FAULTS / "mended" / f"{name}.py", CASES / f"{name}.py"], tmp_path)
    assert twin["printed"].startswith("last loss ")
    assert wrong(twin, cure) == []
    assert cure.shows in wrong(case, cure)


def heard_in(programs, folder):
    """In a process of its own: the programs seed, and set filters of warnings."""
    found = subprocess.run(
        [sys.executable, lineages.__file__, *map(str, programs)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    return json.loads(found.stdout)


def wrong(heard, cure):
    """What is not as in a cured program."""
    runs = [run for run in heard["runs"] if run]
    is_so = {
        "error": not heard["error"],
        "no run": len(runs) == len(heard["runs"]),  # what a state has read is an unbroken run of one sequence
        "states": (len(heard["runs"]), {begin for _, begin, _ in runs}) == (cure.states, set(cure.begins)),
        "steps": sum(steps for *_, steps in runs) == cure.steps,  # nothing that is read is left out
        "from nowhere": not heard["from_nowhere"],
        "graph": heard["with_graph"] == cure.with_graph,
    }
    return [fault for fault, is_well in is_so.items() if not is_well]
