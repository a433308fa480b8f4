"""`watch` beside the programs with public faults and their mended twins: the kinds that it knows, and no other."""

import contextlib
import io
import json
import re
import runpy
import warnings

import pytest
import torch
from score import CASES, FAULTS

from echo_torch import watch
from echo_torch.diagnosis.watching.findings import KINDS

EXPECTED = json.loads((CASES / "expected.json").read_text())
TWINS = sorted(path.name for path in (FAULTS / "mended").glob("*.py"))
NOT_SHOWN = {  # one must know of flags beside the data, or of padding
    "14_no_reset_at_done.py", "16_padding_in_the_answer.py",
}  # fmt: skip
QUICK = [
    "04_fixed_batch_size_state.py",
    "12_reset_one_batch_late.py",
    "17_c_becomes_h.py",
    "26_detach_result_dropped.py",
]


def kinds_in(path):
    """The program runs as it is; three of them end in the error that their fault raises."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), watch() as seen:
        warnings.simplefilter("ignore")
        with contextlib.suppress(RuntimeError), torch.random.fork_rng():
            runpy.run_path(str(path), run_name="__main__")
    return {finding.kind for finding in seen.findings}


def slow_but(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def test_the_kinds_are_those_of_the_benchmark():
    known = set(re.findall(r"^\| `([a-z-]+)` \|", (FAULTS / "README.md").read_text(), flags=re.MULTILINE))
    assert known >= {kind for expected in EXPECTED.values() for kind in [*expected["right"], *expected["also"]]}
    assert set(KINDS) <= known


@pytest.mark.parametrize("name", slow_but(QUICK, EXPECTED))
def test_a_case(name):
    found, right = kinds_in(CASES / name), set(EXPECTED[name]["right"])
    assert found <= {*right, *EXPECTED[name]["also"]}
    assert bool(found & right) == bool(right and name not in NOT_SHOWN)


@pytest.mark.parametrize("name", slow_but(QUICK, TWINS))
def test_a_mended_twin(name):
    assert kinds_in(FAULTS / "mended" / name) == set()
