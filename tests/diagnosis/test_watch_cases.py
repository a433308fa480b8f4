"""`watch` beside the programs with public faults and their mended twins: the kinds that it knows, and no other."""

import contextlib
import io
import json
import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch
from score import CASES, FAULTS

from echo_torch import watch
from echo_torch.diagnosis.watching.findings import KINDS
from echo_torch.diagnosis.watching.kinds import KIND_NAMES

EXPECTED = json.loads((CASES / "expected.json").read_text())
TWINS = sorted(path.name for path in (FAULTS / "mended").glob("*.py"))
PAGE = (Path(__file__).parents[2] / "docs" / "watch.md").read_text()
# Of each case that the page shows, what is printed there.
SHOWN = {
    name: text.splitlines()
    for name, text in re.findall(r"/cases/(\S+\.py)\)\)\n\n```python.*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
}
QUICK = [
    "04_fixed_batch_size_state.py",
    "12_reset_one_batch_late.py",
    "17_c_becomes_h.py",
    "26_detach_result_dropped.py",
]


def seen_in(path):
    """The program runs as it is; three of them end in the error that their fault raises."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), watch() as seen:
        warnings.simplefilter("ignore")
        with contextlib.suppress(RuntimeError), torch.random.fork_rng():
            runpy.run_path(str(path), run_name="__main__")
    return seen


def slow_but(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def test_the_kinds_are_those_of_the_benchmark():
    known = set(re.findall(r"^\| `([a-z-]+)` \|", (FAULTS / "README.md").read_text(), flags=re.MULTILINE))
    assert known >= {kind for expected in EXPECTED.values() for kind in [*expected["right"], *expected["also"]]}
    assert known == set(KINDS) == set(KIND_NAMES)


@pytest.mark.parametrize("name", slow_but(QUICK, EXPECTED))
def test_a_case(name):
    seen, right = seen_in(CASES / name), set(EXPECTED[name]["right"])
    found = {finding.kind for finding in seen.faults}
    assert found <= {*right, *EXPECTED[name]["also"]}
    assert bool(found & right) == bool(right)
    said = re.search(rf"^\| {name.removesuffix('.py')} \| (.*) \|$", PAGE, flags=re.MULTILINE)[1]
    assert set(re.findall(r"`(\S+)`", said)) == found
    assert set(SHOWN.get(name, ())) <= set(seen.lines())


def test_the_page_shows_ten_kinds_with_their_cures():
    kinds = re.findall(r"^### (\S+)$", PAGE, flags=re.MULTILINE)
    assert len(set(kinds)) == len(kinds) == len(SHOWN) >= 10
    assert [line.split(" in ")[0] for lines in SHOWN.values() for line in lines] == kinds
    for name, faulty in re.findall(r"/cases/(\S+\.py)\)\)\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL):
        assert " ".join(faulty.split()) in " ".join((CASES / name).read_text().split())


@pytest.mark.parametrize("name", slow_but(QUICK, TWINS))
def test_a_mended_twin(name):
    assert seen_in(FAULTS / "mended" / name).faults == []
