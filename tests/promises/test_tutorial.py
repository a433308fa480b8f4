"""The tutorial: page, notebook and source say the same, and what it shows is what a new run of it shows."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echo_torch import RunDirectory, configure, generate_sequence, train
from echo_torch.lab import Plan

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Between two machines rounding differs, and grows where a training has not settled. Whole numbers must be the same.
POINTS = 6.0


def load_maker():
    spec = importlib.util.spec_from_file_location("make_tutorial", DOCS / "make_tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()
NOTEBOOK = json.loads((DOCS / "tutorial.ipynb").read_text())
CELLS = NOTEBOOK["cells"]


def printed(cell):
    """What a cell prints, and the tables that it shows."""
    texts = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "image/png" not in data:
            texts.append("".join(output.get("text") or data.get("text/markdown") or data.get("text/plain")))
    return "".join(texts)


def test_the_page_is_made_of_the_notebook():
    page = MAKER.page_of(NOTEBOOK)
    assert (DOCS / "tutorial.md").read_text() == page.text
    assert {path.name: path.read_bytes() for path in (DOCS / "tutorial").iterdir()} == page.pictures
    assert len(page.pictures) >= 15


def test_the_notebook_is_made_of_the_source():
    pytest.importorskip("jupytext", reason=".ci/run installs it")
    source = json.loads(json.dumps(MAKER.read_source().cells))
    assert [(one["cell_type"], one["source"], one["metadata"]) for one in source] == [
        (one["cell_type"], MAKER.text(one), one["metadata"]) for one in CELLS
    ]


def test_each_cell_was_run_in_order_and_none_complains():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}
    assert sum(printed(cell).count("holds: ") for cell in code) >= 40


def numbers(text):
    return set(re.findall(r"\d+(?:\.\d+)?", text.replace(",", "")))


def test_prose_holds_no_number_that_its_section_does_not_compute():
    """Numbers of prose stand in the code or in the outputs of the same section."""
    sections, prose = [""], [""]
    for cell in CELLS:
        text = MAKER.text(cell)
        if cell["cell_type"] == "code":
            sections[-1] += text + printed(cell)
            continue
        for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
            if part.startswith("## "):
                sections.append("")
                prose.append("")
            prose[-1] += part + "\n"
    assert len(sections) >= 15
    for said, known in zip(prose, sections, strict=True):
        said = re.sub(r"\]\([^)]*\)|^## \d+\.|\*\*\d+\.\*\*", "", said, flags=re.MULTILINE)  # links, numbered headings
        assert not numbers(said) - numbers(known), said


def typed_loop(symbols):
    """`train_by_hand`, as it stands on the page."""
    (source,) = (MAKER.text(cell) for cell in CELLS if "def train_by_hand" in MAKER.text(cell))
    assert len(re.search(r"def train_by_hand.*?return history\n", source, flags=re.DOTALL)[0].splitlines()) <= 30
    names = {"torch": torch, "generate_sequence": generate_sequence, "SYMBOLS": symbols}
    exec(source, names)  # the repository's own page
    return names["train_by_hand"]


@pytest.mark.parametrize(
    ("mode", "reading"),
    [
        ("echo", {"window": 1, "batch_size": 1, "lag": 0, "first": 0, "carry": False}),
        ("stateful", {"window": 1, "batch_size": 6, "lag": 1, "first": 1}),
        ("lag", {"window": 5, "batch_size": 5, "lag": 1, "first": 5}),
    ],
)
def test_the_typed_loop_trains_as_the_product_does(tmp_path, mode, reading):
    """From the same first weights: each loss, the right answers of each update, and of an evaluation."""
    sequences = 10
    configuration = configure(
        mode, vocabulary_size=7, learning_rate=0.003, sequences=sequences, log_every=1, accelerator="cpu"
    )
    run = RunDirectory(tmp_path / "run")
    result = train(configuration, run, audit="count")
    metrics, plan = run.read_metrics(), Plan(configuration)
    model = plan.model()
    history = typed_loop(7)(model.lstm, model.head, num_sequences=sequences, **reading)
    losses, right, asked = zip(*history, strict=True)
    assert len(losses) == plan.num_updates
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(metrics["loss"]), rtol=0, atol=1e-4)
    counted = [round(share * of) for share, of in zip(metrics["accuracy"], metrics["targets"], strict=True)]
    assert (list(right), list(asked)) == (counted, metrics["targets"])
    assert plan.evaluate(model).accuracy == pytest.approx(result["accuracy"], abs=2e-3)


@pytest.mark.slow
def test_a_new_run_shows_what_the_page_shows(tmp_path):
    pytest.importorskip("nbmake", reason=".ci/run installs it")
    copy = shutil.copy(DOCS / "tutorial.ipynb", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=600", "--overwrite", "-q", copy]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    again = json.loads(Path(copy).read_text())["cells"]
    assert len(again) == len(CELLS)
    for old, new in zip(CELLS, again, strict=True):
        expected, seen = printed(old), printed(new)
        assert re.sub(r"\d+\.\d+", "#", seen) == re.sub(r"\d+\.\d+", "#", expected)
        for one, other in zip(re.findall(r"\d+\.\d+", seen), re.findall(r"\d+\.\d+", expected), strict=True):
            assert abs(float(one) - float(other)) <= POINTS, (seen, expected)
