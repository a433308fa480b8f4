"""The picture of what a watch has seen: its boxes and lines are those of the rows that were read."""

import matplotlib
import pytest
import torch
from matplotlib.patches import Rectangle
from support.loops import detached
from torch import nn

from echo_torch import Stamps, watch
from echo_torch.diagnosis.watching.tracks import EMPTY, KNOWN, MADE, STRANGE
from echo_torch.errors import RuleError
from echo_torch.lab import watch_figure
from echo_torch.lab.watch_figure import draw_watch

ROWS, STEPS = 2, 4
WHOLE = torch.randn(ROWS, 200, 2, generator=torch.Generator().manual_seed(1))


def lstm():
    torch.manual_seed(0)
    return nn.LSTM(2, 5, batch_first=True)


def seen_of(begins, hand_on=detached, steps=STEPS, model=None):
    model, state = model or lstm(), None
    with watch(model) as seen:
        for begin in begins:
            state = hand_on(model(WHOLE[:, begin : begin + steps], state)[1])
    return seen


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws, and returns the texts in the picture by place, the number of boxes, and the words of the key."""

    def draw(seen, **options):
        kept = []
        monkeypatch.setattr(watch_figure, "save_figure", lambda figure, path: kept.append(figure))
        draw_watch(seen, tmp_path / "x.png", **options)
        axes = kept[0].axes[0]
        texts = {
            (round(float(text.get_position()[0]), 2), text.get_position()[1]): text.get_text() for text in axes.texts
        }
        boxes = sum(isinstance(patch, Rectangle) for patch in axes.patches)
        return texts, boxes, [text.get_text() for text in kept[0].legends[0].get_texts()], axes

    return draw


GOES_ON, ELSEWHERE, BEGINS = "goes on where its state stopped", "goes on elsewhere", "begins without a state"


def test_boxes_and_gaps_are_those_that_were_read(drawn):
    texts, boxes, keys, axes = drawn(seen_of((0, 4, 10)))
    assert boxes == 3 * STEPS * ROWS
    first_row = [texts[x, y] for x, y in sorted(texts) if y == -0.09]
    assert first_row == [str(step) for step in [*range(8), *range(10, 14)]]
    assert [text for (_, y), text in texts.items() if y == -0.4] == ["+2"]
    assert [key.split(":")[0] for key in keys] == ["step read (?", GOES_ON, ELSEWHERE, BEGINS]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["call 0", "call 1", "call 2"]


def test_a_healthy_training_has_no_red(drawn):
    texts, _, keys, axes = drawn(seen_of((0, 4, 8)))
    assert not any(ELSEWHERE in key for key in keys)
    assert all(line.get_color() != watch_figure.MISSING for line in axes.lines)
    assert not any(y == -0.4 for _, y in texts)


def test_of_rows_that_look_alike_a_few_are_drawn(drawn):
    """Of others as many as there is room for; the picture says how many more there are."""
    for number, is_alike, words in (
        (12, True, "... and 9 more rows, which look the same"),
        (4, True, "... and 1 more row, which looks the same"),
        (12, False, "... and 4 more rows"),
    ):
        model, state = lstm(), None
        data = torch.randn(number, 20, 2, generator=torch.Generator().manual_seed(1))
        with watch(model) as seen:
            for begin in (0, 4):
                rows = data if is_alike or not begin else torch.cat([data[:1].roll(-3, dims=1), data[1:]])
                state = detached(model(rows[:, begin : begin + STEPS], state)[1])
        texts, boxes, _, axes = drawn(seen)
        num_rows = 3 if is_alike else 8
        assert words in texts.values()
        assert boxes == 2 * STEPS * num_rows
        assert [label.get_text() for label in axes.get_yticklabels()] == [f"row {row}" for row in range(num_rows)]


def test_rows_that_move_have_slanted_lines(drawn):
    model, state, order = lstm(), None, [0, 1]
    with watch(model) as seen:
        for begin in (0, 4):
            state = tuple(field[:, [1, 0]] for field in detached(model(WHOLE[order, begin : begin + STEPS], state)[1]))
            order = order[::-1]
    *_, axes = drawn(seen)
    slanted = [
        line for line in axes.lines if len({float(y) for y in line.get_ydata()}) == 2 and line.get_linewidth() < 2
    ]
    assert len(slanted) == ROWS


def plus_one(state):
    return tuple(field.detach() + 1 for field in state)


def of_the_model(state):
    return tuple(torch.ones(1, ROWS, 5, requires_grad=True) * 2 for _ in state)


@pytest.mark.parametrize(
    ("hand_on", "begins", "word"),
    [
        (lambda state: None, EMPTY, BEGINS),
        (plus_one, STRANGE, "a state of no call"),
        (of_the_model, MADE, "begins with a state of the model's own"),
        (detached, KNOWN, GOES_ON),
    ],
)
def test_where_a_state_comes_from(hand_on, begins, word, drawn):
    seen = seen_of((0, 4), hand_on)
    assert {track.begins for track in seen.tracks()[1].tracks} == {begins}
    assert any(key.startswith(word) for key in drawn(seen)[2])


def test_what_is_unknown_has_a_question_mark(drawn):
    model, state = lstm(), None
    with watch(model) as seen:
        for batch in (WHOLE[:, :STEPS].clone(), torch.randn(ROWS, STEPS, 2)):
            state = detached(model(batch, state)[1])
    texts, _, keys, _ = drawn(seen)
    assert [text for (_, y), text in texts.items() if y == -0.4] == ["?"]
    assert any("unknown how far" in key for key in keys)
    with watch(model) as seen:
        model(WHOLE[:, :STEPS, :1] * torch.ones(2, requires_grad=True))
    assert list(drawn(seen)[0].values()) == ["?", "?"]


def test_stamps_padding_and_jumps_inside_a_row(drawn):
    model, state = lstm(), None
    with watch(model) as seen:
        for step in ([[-1, 7, 8, 10], [3, 4, 5, 6]], [[11, 12, -1, -1], [-1] * 4]):
            batch = torch.randn(ROWS, STEPS, 2)
            seen.place(batch, Stamps(step=step, sequence=[0, 1]))
            state = detached(model(batch, state)[1])
    texts, boxes, _, _ = drawn(seen)
    assert boxes == 9
    assert [text for (_, y), text in sorted(texts.items()) if y == -0.09] == ["-", "7", "8", "10", "11", "12", "-", "-"]
    assert [text for (_, y), text in texts.items() if y in (-0.4, 0.6)] == ["+1"]


def test_many_steps_are_cut_in_the_middle(drawn):
    texts, boxes, _, axes = drawn(seen_of(range(0, 180, 30), steps=30))
    assert [texts[x, y] for x, y in sorted(texts) if y == -0.09][:6] == ["0", "1", "...", "28", "29", "30"]
    assert boxes == 5 * 4 * ROWS
    assert len(axes.get_xticklabels()) == 5


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        (range(0, 20, 4), ""),
        (range(0, 32, 4), "\ndrawn: the first 5 of 8 calls of the layer"),
        (
            [0, 4, 10, 14, 18, 22, 27, 31, 0],
            "\ndrawn: the first 5 of 9 calls of the layer; in 2 of the others rows go on elsewhere",
        ),
    ],
)
def test_what_is_not_drawn_is_told(drawn, begins, words):
    *_, axes = drawn(seen_of(begins))
    assert axes.get_xlabel() == "call of the whole model in training" + words


def test_calls_that_train_nothing_are_not_called_so(drawn):
    seen = seen_of((0, 4), model=lstm().eval())
    *_, axes = drawn(seen, layer=seen.layers[0])
    assert axes.get_xlabel() == "call of the whole model"


def test_steps_inside_one_call_stand_together(drawn):
    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(2, 5)

        def forward(self, inputs, state):
            for step in inputs.unbind(1):
                state = self.cell(step, state)
            return state, (state,)

    model, state = Stepped(), None
    with watch(model) as seen:
        for begin in (0, 4):
            state = model(WHOLE[:, begin : begin + STEPS], state)[0].detach()
    texts, boxes, _, axes = drawn(seen)
    assert boxes == 2 * STEPS * ROWS
    assert [label.get_text() for label in axes.get_xticklabels()] == ["call 0", "call 1"]
    assert sorted(x for x, y in texts if y == -0.09) == [0, 1, 2, 3, 5.2, 6.2, 7.2, 8.2]


def test_the_layer_can_be_named(drawn):
    model = nn.ModuleDict({"first": lstm(), "second": lstm()})
    with watch(model) as seen:
        for layer in ("first", "second"):
            model[layer](WHOLE[:, :STEPS])
    assert [drawn(seen, layer=layer)[3].get_title().split(":")[0] for layer in (None, "second")] == ["first", "second"]
    with pytest.raises(RuleError, match="they are first, second"):
        drawn(seen, layer="third")


def test_nothing_to_draw(drawn):
    with watch() as seen:
        pass
    with pytest.raises(RuleError, match="and none was"):
        drawn(seen)


def test_settings_from_outside_change_nothing(tmp_path):
    seen = seen_of((0, 4, 10))
    draw_watch(seen, tmp_path / "own.png")
    with matplotlib.rc_context({"lines.linewidth": 9, "savefig.dpi": 30, "figure.facecolor": "red"}):
        draw_watch(seen, tmp_path / "hostile.png")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "hostile.png").read_bytes()
