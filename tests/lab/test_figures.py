import io
from itertools import islice, pairwise
from xml.etree import ElementTree

import matplotlib
import pytest

from echo_torch import configure
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.lab import drawing, figures, grid_figures, reach_figure, watch_figure
from echo_torch.lab.plan import Plan
from echo_torch.lab.reach_boxes import boxes_of, look_alike
from echo_torch.lab.reach_figure import draw_reach


def first_chunks(mode, number=4, **options):
    return list(islice(Plan(configure(mode, **options)).training(), number))


@pytest.fixture
def saved(monkeypatch):
    """The figures that are drawn, kept before they become files."""
    found = []
    for module in (figures, grid_figures, reach_figure):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: found.append(figure))
    return found


def texts(figure):
    """All that is written in a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


# The picture of reach


@pytest.mark.parametrize("mode", ["lag", "masked", "whole", "sequence", "aligned"])
def test_the_drawing_says_what_reach_says(tmp_path, monkeypatch, mode):
    """Every question is drawn, ticked where reach finds the answer; a missing symbol is no jump."""
    c = configure(mode, missing=0.3, **({"lanes": 8} if mode == "aligned" else {"length": 8}))
    questions, cells = [], []
    monkeypatch.setattr(
        reach_figure, "_draw_question", lambda axes, x, lane, asked, has_read: questions.append(has_read)
    )
    monkeypatch.setattr(reach_figure, "_draw_cell", lambda axes, x, lane, step, is_read: cells.append(is_read))
    chunks = list(islice(Plan(c).training(), 2))
    draw_reach(chunks, 1, tmp_path / "x.png")
    found = reach(chunks, 1)
    assert len(questions) == found.targets
    assert sum(questions) / len(questions) == pytest.approx(found.reachable_share)
    assert len(cells) == sum(int((chunk.step >= 0).sum()) for chunk in chunks)
    assert sum(cells) == sum(int((chunk.symbols >= 0).sum()) for chunk in chunks)
    assert Plan(c).reach().gap == 0


def test_the_key_shows_the_tick_that_stands_below_the_boxes(saved):
    """No formula, which these pictures do not read as one."""
    draw_reach(first_chunks("lag"), 1, "x.png")
    (legend,) = saved[0].legends
    ticks = [line.get_marker() for line in legend.get_lines() if "read by this row" in line.get_label()]
    assert [len(tick.vertices) > 5 for tick in ticks] == [True]  # an outline


@pytest.mark.parametrize(("mode", "options"), [("stateful", {}), ("lag", {"batch_size": 4}), ("aligned", {"lanes": 2})])
def test_the_gaps_of_the_boxes_are_those_of_reach(mode, options):
    chunks = first_chunks(mode, 8, **options)
    boxes = [box for lane in boxes_of(chunks, 1) for chunk in lane for box in chunk]
    gaps = [box.gap for box in boxes if box.gap is not None]
    assert {gap: gaps.count(gap) for gap in set(gaps)} == reach(chunks, 1).gaps


def test_of_rows_that_look_alike_a_few_are_drawn(saved):
    chunks = first_chunks("aligned", lanes=32)
    draw_reach(chunks, 1, "x.png")
    assert "... and 29 more lanes, which read the same steps, each of its own sequence" in texts(saved[0])
    assert "lane 2" in texts(saved[0])
    assert "lane 3" not in texts(saved[0])
    draw_reach(first_chunks("aligned", lanes=32, missing=0.3), 1, "x.png")  # here each row misses other symbols
    assert "... and 24 more lanes" in texts(saved[1])


def test_rows_look_alike_where_all_that_is_drawn_is_the_same():
    assert look_alike(boxes_of(first_chunks("aligned", lanes=3), 1))
    assert not look_alike(boxes_of(first_chunks("stateful"), 1))
    assert not look_alike(boxes_of(first_chunks("aligned", lanes=4, stagger=True, reset_every=10), 1))


def test_a_chunk_is_as_wide_as_its_longest_row(saved):
    draw_reach(first_chunks("whole"), 1, "x.png")
    left, right = saved[0].axes[0].get_xlim()
    (of_boxes,) = [max(box.get_x() + box.get_width() for box in saved[0].axes[0].patches)]
    assert right - of_boxes < 1  # no empty columns
    assert right - left < 20


def test_of_a_long_chunk_the_end_is_drawn_too(saved):
    draw_reach(first_chunks("sequence", 1, length=60), 1, "x.png")
    written = texts(saved[0])
    assert {"0", "18", "...", "55", "59"} <= set(written)
    assert not {"19", "54"} & set(written)


CUT = "gradient cut: the state goes on, no gradient goes back"


@pytest.mark.parametrize(
    ("mode", "options", "is_cut"),
    [
        ("aligned", {}, True),
        ("stateful", {}, True),
        ("stateful", {"cut": "sequence"}, False),
        ("lag", {"carry": "reset"}, False),  # nothing is handed over
    ],
)
def test_the_cut_of_the_gradient_is_drawn_where_a_state_is_handed_over(saved, mode, options, is_cut):
    draw_reach(first_chunks(mode, **options), 1, "x.png")
    cuts = [line for line in saved[0].axes[0].lines if line.get_color() == drawing.BLUE]
    assert bool(cuts) == is_cut
    assert (CUT in texts(saved[0])) == is_cut


def test_the_arrow_of_the_example_crosses_no_label(saved):
    for mode, options, lag in (
        ("stateful", {}, 1),
        ("lag", {"batch_size": 4, "lag": 4}, 4),
        ("stateful", {"lag": 8}, 8),
    ):
        draw_reach(first_chunks(mode, 8, **options), lag, "x.png")
        figure = saved.pop()
        figure.canvas.draw()
        axes = figure.axes[0]
        arrows = [line for line in axes.lines if line.get_color() == drawing.PURPLE]
        if mode == "stateful":
            assert len(arrows) == 1
        for line in arrows:
            points = axes.transData.transform(line.get_xydata())
            labels = [text for text in axes.texts if text.get_text()]
            for begin, end in pairwise(points):
                box = matplotlib.transforms.Bbox([begin, end])
                crossed = [text.get_text() for text in labels if text.get_window_extent().overlaps(box)]
                assert not crossed, (mode, crossed)


# Pictures of runs and of grids


@pytest.mark.parametrize(
    ("losses", "limits"),
    [([2.3, 2.0, 0.4], (0.0, 2.53)), ([4.6, 4.62, 4.58], (4.5338, 4.6662)), ([2.0, float("nan")], (1.98, 2.02))],
)
def test_the_loss_is_in_the_middle_of_its_panel(losses, limits):
    assert figures._loss_limits(losses) == pytest.approx(limits)


GRID = {"lag": [1], "chunk": [5], "learning_rate": [0.003]}
CELL = {"lag": 1, "chunk": 5, "learning_rate": 0.003, "accuracy": 0.5, "accuracies": [0.5]}
TITLE = "aligned lanes, 10 symbols, hidden size 50, 4000 updates, a title as long as that of many options, 30 seeds"


def test_a_small_map_keeps_its_title(saved):
    grid_figures.draw_map(GRID, [CELL], "x.png", title=TITLE)
    figure = saved[0]
    figure.canvas.draw()
    extent = figure._suptitle.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width
    assert figure._suptitle.get_text().replace("\n", " ") == TITLE


def lags_cell(**values):
    row = {"lag": 1, "hidden_size": 10, "carry": "keep", "accuracy": 0.5, "accuracies": [0.5], "seeds": 1}
    return {**row, "sequences_to_99": None, "sequences_to_99_half_interval": None, "seeds_to_99": 0, **values}


def test_where_nothing_reaches_99_per_cent_there_is_no_empty_panel(saved):
    axes = {"lag": [1], "hidden_size": [10], "carry": ["keep"]}
    grid_figures.draw_lags(axes, [lags_cell()], "x.png", title="lags")
    grid_figures.draw_lags(axes, [lags_cell(sequences_to_99=700.0, seeds_to_99=1)], "x.png", title="lags")
    assert [len(figure.axes) for figure in saved] == [1, 2]
    assert "lags; no seed reached 99 %" in texts(saved[0])


def test_the_lines_of_lags_are_told_apart_without_colours():
    axes = {"lag": [1], "hidden_size": [10, 20], "carry": ["keep", "reset"]}
    cells = [lags_cell(hidden_size=size, carry=carry) for size in (10, 20) for carry in ("keep", "reset")]
    styles = [(style["marker"], style["linestyle"]) for style, _ in grid_figures._lines_of(axes, cells)]
    assert len(set(styles)) == 4


def test_beginnings_of_a_state_are_told_apart_without_colours():
    assert len({str(style["linestyle"]) for style in watch_figure._BARS.values()}) == 3


# Files


def test_a_name_in_svg_makes_an_svg_of_the_same_bytes_each_time(tmp_path):
    chunks = first_chunks("lag")
    for name in ("a.svg", "b.svg", "a.png"):
        draw_reach(chunks, 1, tmp_path / name)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    file = io.BytesIO()
    draw_reach(chunks, 1, file)
    assert file.getvalue() == (tmp_path / "a.svg").read_bytes()


def test_no_picture_holds_a_picture_of_dots(tmp_path):
    """A map in SVG is drawn in areas, its colour bar too: it can be enlarged, and a page may forbid images."""
    grid_figures.draw_map(GRID, [CELL], tmp_path / "map.svg", title=TITLE)
    assert "<image" not in (tmp_path / "map.svg").read_text()


def test_settings_from_outside_change_no_picture(tmp_path):
    """Neither a user's nor a directory's matplotlibrc, which may want LaTeX; and theirs are as before afterwards."""
    chunks = list(islice(Plan(configure("lag", batch_size=2)).training(), 2))
    hostile = {"text.usetex": True, "lines.linewidth": 9, "savefig.dpi": 30, "figure.facecolor": "red"}
    draw_reach(chunks, 1, tmp_path / "own.png")
    with matplotlib.rc_context(hostile):
        draw_reach(chunks, 1, tmp_path / "hostile.png")
        assert {name: matplotlib.rcParams[name] for name in hostile} == hostile
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "hostile.png").read_bytes()


def test_every_drawing_has_its_own_settings():
    modules = (figures, grid_figures, reach_figure, watch_figure)
    names = {name: value for module in modules for name, value in vars(module).items()}
    drawing_names = [name for name in names if name.startswith("draw_") and name != "draw_by_chunk"]
    assert len(drawing_names) >= 10
    assert all(hasattr(names[name], "__wrapped__") for name in drawing_names)
