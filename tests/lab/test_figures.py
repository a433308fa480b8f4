from itertools import islice

import matplotlib
import pytest

from echo_torch import configure
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.lab import figures, grid_figures
from echo_torch.lab.plan import Plan


@pytest.mark.parametrize("mode", ["lag", "masked", "whole", "sequence", "aligned"])
def test_the_drawing_says_what_reach_says(tmp_path, monkeypatch, mode):
    """Every question is drawn, ticked where reach finds the answer; a missing symbol is no jump."""
    c = configure(mode, missing=0.3, **({"lanes": 8} if mode == "aligned" else {"length": 8}))
    questions, cells = [], []
    monkeypatch.setattr(figures, "_draw_question", lambda axes, x, lane, asked, has_read: questions.append(has_read))
    monkeypatch.setattr(figures, "_draw_cell", lambda axes, x, lane, step, is_read: cells.append(is_read))
    chunks = list(islice(Plan(c).training(), 2))
    figures.draw_reach(chunks, 1, tmp_path / "x.png")
    found = reach(chunks, 1)
    assert len(questions) == found.targets
    assert sum(questions) / len(questions) == pytest.approx(found.reachable_share)
    assert len(cells) == sum(int((chunk.step >= 0).sum()) for chunk in chunks)
    assert sum(cells) == sum(int((chunk.symbols >= 0).sum()) for chunk in chunks)
    assert Plan(c).reach().gap == 0


def test_settings_from_outside_change_no_picture(tmp_path):
    """Neither a user's nor a directory's matplotlibrc, which may want LaTeX; and theirs are as before afterwards."""
    chunks = list(islice(Plan(configure("lag", batch_size=2)).training(), 2))
    hostile = {"text.usetex": True, "lines.linewidth": 9, "savefig.dpi": 30, "figure.facecolor": "red"}
    figures.draw_reach(chunks, 1, tmp_path / "own.png")
    with matplotlib.rc_context(hostile):
        figures.draw_reach(chunks, 1, tmp_path / "hostile.png")
        assert {name: matplotlib.rcParams[name] for name in hostile} == hostile
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "hostile.png").read_bytes()


def test_every_drawing_has_its_own_settings():
    names = {**vars(figures), **vars(grid_figures)}
    drawing = [name for name in names if name.startswith("draw_") and name != "draw_by_chunk"]
    assert len(drawing) >= 9
    assert all(hasattr(names[name], "__wrapped__") for name in drawing)
