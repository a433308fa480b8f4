"""The page of a run or a sweep: what it says, what it cannot do, and when it goes."""

import base64
import hashlib
import json
import re
import shlex
import shutil
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import runs
from support.browser import CHROMIUM, browser
from support.runs import Here, StopError, copied, everything, stop_at

from echo_torch import RunDirectory, grid_of, run_sweep, train
from echo_torch.cli import main
from echo_torch.errors import RuleError, UserError
from echo_torch.lab import comparison, page_run
from echo_torch.lab.grids import Grid
from echo_torch.lab.html import html, tag, visible
from echo_torch.lab.page_figures import Figures, on_dark
from echo_torch.lab.page_sweep import sweep_command
from echo_torch.lab.plan import Plan
from echo_torch.lab.report_page import write_report
from echo_torch.lab.run_directory import PAGE
from echo_torch.lab.yaml_files import to_yaml

short = partial(runs.short, vocabulary_size=10)
HOSTILE = "\"><script>alert('x')</script>&amp;<!--]]>"
OPTIONS = {"updates": 8, "hidden_size": 4, "vocabulary_size": 10, "lanes": 2}
GRID = {"lag": [0, 1], "chunk": [1, 2]}
VOID = {"meta", "!doctype"}


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan.evaluation, "__defaults__", (20,))
        yield


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("page") / "run")
    train(short("stateful", updates=18, lag=6), run, audit="count")
    return run


@pytest.fixture
def finished(finished_once, tmp_path):
    return copied(finished_once, tmp_path / "run")


@pytest.fixture(scope="module")
def sweep_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "sweep"
    run_sweep(grid_of("aligned", GRID, 2, OPTIONS), folder, executor=Here())
    return folder


@pytest.fixture(scope="module")
def page_of_run(finished_once, tmp_path_factory):
    return write_report(copied(finished_once, tmp_path_factory.mktemp("page") / "run").path)


@pytest.fixture(scope="module")
def page_of_sweep(sweep_once, tmp_path_factory):
    return write_report(shutil.copytree(sweep_once, tmp_path_factory.mktemp("page") / "sweep"))


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their figures, which take a second."""
    monkeypatch.setattr(Figures, "add", lambda figures, draw, title, text: tag("svg", title))


@pytest.fixture
def sweep(sweep_once, tmp_path):
    return Path(shutil.copytree(sweep_once, tmp_path / "sweep"))


class Parsed(HTMLParser):
    """A page as a browser reads it: its elements, each with its attributes and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not {"style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def named(self, name):
        return [attributes for element, attributes in self.elements if element == name]


def parsed(folder):
    return Parsed(write_report(folder).read_text())


# What it says


def test_the_page_of_a_run_says_what_result_json_says(page_of_run):
    result = RunDirectory(page_of_run.parent).read_result()
    found = Parsed(page_of_run.read_text())
    for words in (
        "stateful: the symbol one step ago, one step at a time: the beginner's mistake",
        "Chance is 10.00%, 1 of 10 symbols.",
        f"{result['parameters']:,} parameters",
        f"{result['accuracy']:.2%}",
        f"{result['accuracy_low']:.2%} to {result['accuracy_high']:.2%}",
        f"{result['ceiling']:.2%}",
        "A row skips 5 steps at every hand-over",
        "reachable lags: 0, 6, 12, 18",
        f"{result['gaps']['5']:,} of {sum(result['gaps'].values()):,} hand-overs (100.0%) gave a row a state",
        "python -m echo_torch train --mode stateful --updates 18 --vocabulary-size 10 --lag 6",
        result["weights_sha256"],
        result["versions"]["torch"],
    ):
        assert words in found.text, words
    assert len(found.named("svg")) == 2


def test_the_page_of_a_sweep_says_what_its_table_says(page_of_sweep):
    found = Parsed(page_of_sweep.read_text())
    lines = [line.strip("| ").split(" | ") for line in page_of_sweep.with_name("table.md").read_text().splitlines()]
    for line in (lines[0], *lines[2:]):
        assert " ".join(line) in found.text
    assert "4 combinations of options, 2 seeds each: 8 runs." in found.text
    counted = sum(
        sum(json.loads(path.read_text())["gaps"].values()) for path in page_of_sweep.parent.glob("*/result.json")
    )
    assert f"All {counted:,} hand-overs gave each row the state that belongs where the row goes on." in found.text
    assert len(found.named("svg")) == 3


def test_of_the_configuration_it_is_told_what_was_chosen(page_of_run):
    text = Parsed(page_of_run.read_text()).text
    assert "updates 18 -" in text
    assert "lag 6 1" in text
    assert "batch size 6 data" in text  # the mode's default


def test_of_lanes_it_is_told_that_the_last_place_holds_all_later_chunks(page_of_run, sweep, undrawn):
    assert "chunk of the sequence targets" in Parsed(page_of_run.read_text()).text
    assert "chunk since the reset (9: and all later) targets" in parsed(next(sweep.glob("*-seed2"))).text


@pytest.mark.parametrize(
    "grid",
    [
        Grid("aligned", {"lag": [0, 1], "stagger": [False, True]}, 2, {"updates": 8, "reset_every": 4, "lanes": 2}),
        Grid("lag", {"clip_norm": [None, 0.5]}, 1, {"updates": 8, "window": 3}),
        Grid("lag", {}, 2, {"updates": 8}),
    ],
)
def test_the_command_of_a_sweep_makes_the_same_grid(grid, monkeypatch):
    asked = []

    def instead(grid, folder, **options):
        asked.append(grid)
        raise UserError("enough")

    monkeypatch.setattr("echo_torch.lab.sweep.run_sweep", instead)
    assert main(shlex.split(sweep_command(grid))[3:]) == 2
    assert asked[0].runs() == grid.runs()


def test_a_chance_of_many_symbols_is_not_told_as_nothing(tmp_path, undrawn):
    (tmp_path / "config.yaml").write_text(to_yaml(short("lag", vocabulary_size=100_000)))
    assert "Chance is 0.001%, 1 of 100,000 symbols." in parsed(tmp_path).text


@pytest.mark.parametrize(
    ("options", "words"),
    [({"layers": 2}, "lstm, hidden size 50, 2 layers"), ({"model": "some_models:Net"}, "some_models:Net")],
)
def test_of_a_network_it_is_told_what_the_training_told(tmp_path, undrawn, options, words):
    (tmp_path / "config.yaml").write_text(to_yaml(short("lag", **options)))
    assert f"Network: {words}. Seed 1." in parsed(tmp_path).text


def test_an_unfinished_run_is_told_to_be_one(finished, undrawn):
    finished.result.unlink()
    assert "The run is not finished: 18 of 18 updates have a row." in parsed(finished.path).text
    finished.metrics.unlink()
    found = parsed(finished.path)
    assert "0 of 18 updates have a row" in found.text
    assert len(found.named("svg")) == 1  # the picture of reach, and no curve


def test_why_a_run_has_failed_is_told(finished, undrawn):
    finished.result.unlink()
    finished.write_failure(1, 7, f"The loss is nan {HOSTILE}")
    assert f"The loss is nan {HOSTILE}" in parsed(finished.path).text


def test_own_data_that_are_gone_are_told(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    Path("numbers.txt").write_text(" ".join(str(number % 10) for number in range(400)))
    train(short("aligned", data="numbers.txt", lanes=2), RunDirectory(Path("run")))
    assert "no ceiling to compare with" in parsed("run").text
    Path("numbers.txt").write_text(" ".join(str(number % 9) for number in range(300)))
    changed = parsed("run").text
    assert "Nothing can be said of it any more: 'numbers.txt' has changed since 'run/checkpoints/last.ckpt'" in changed
    assert "reachable lags" not in changed
    Path("numbers.txt").unlink()
    assert "Nothing can be said of it any more: Cannot read 'numbers.txt'" in parsed("run").text


WATCHED = {
    "findings": [{"kind": "lost-state", "module": "net.<rnn>", "count": 3, "of": 1200, "sentence": HOSTILE}],
    "unknown": ["At 7 hand-overs it is not known."],
    "intended": [{"kind": "rows-skip", "module": "", "count": 1, "of": 2, "sentence": "Rows skip."}],
}


def test_what_a_watch_has_found_is_told(finished, tmp_path, undrawn):
    file = tmp_path / "findings.json"
    file.write_text(json.dumps(WATCHED))
    assert main(["report", str(finished.path), "--watched", str(file)]) == 0
    text = Parsed(finished.page.read_text()).text
    assert f"lost-state net.<rnn> 3 of 1,200 {HOSTILE}" in text
    assert "rows-skip 1 of 2 Rows skip." in text
    assert "At 7 hand-overs it is not known." in text
    file.write_text(json.dumps({"findings": [], "unknown": []}))
    write_report(finished.path, watched=file)
    assert "Nothing that a state would suffer from." in Parsed(finished.page.read_text()).text


def a_finding(**parts):
    return json.dumps({"findings": [{**WATCHED["findings"][0], **parts}], "unknown": []})


@pytest.mark.parametrize(
    "held",
    [
        a_finding(count=True),
        a_finding(of=-1),
        "",
        "[]",
        "{}",
        '{"findings": 1, "unknown": []}',
        '{"findings": [{"kind": 1}], "unknown": []}',
        "[" * 99999,
    ],
)
def test_a_file_that_no_watch_wrote_is_refused(finished, tmp_path, capsys, held):
    file = tmp_path / "findings.json"
    file.write_text(held)
    assert main(["report", str(finished.path), "--watched", str(file)]) == 2
    assert capsys.readouterr().err.startswith("--watched must be the file that the command watch has written. Got")
    assert not finished.page.exists()


# Comparisons


@pytest.fixture(scope="module")
def comparison_once(tmp_path_factory):
    """Two arms, shorter than they are."""
    folder = tmp_path_factory.mktemp("page") / "comparison"
    with pytest.MonkeyPatch.context() as patch:
        for arm in ("lag", "stateful"):
            options = {"updates": 8, "vocabulary_size": 10, "hidden_size": 4}
            patch.setitem(comparison.ARMS, arm, replace(comparison.ARMS[arm], options=options))
        patch.setattr(comparison, "train_many", partial(comparison.train_many, executor=Here()))
        comparison.run_comparison(["lag", "stateful"], 2, folder)
        yield folder


def test_the_page_of_a_comparison_says_what_its_table_says(comparison_once):
    found = parsed(comparison_once)
    lines = [line.strip("| ").split(" | ") for line in (comparison_once / "comparison.md").read_text().splitlines()]
    for line in (lines[0], *lines[2:]):
        assert " ".join(line) in found.text
    assert "python -m echo_torch compare --seeds 2 --arms lag stateful" in found.text
    assert len(found.named("svg")) == 2
    comparison.run_comparison(["lag", "stateful"], 2, comparison_once)
    assert not (comparison_once / PAGE).exists()


def test_a_damaged_run_of_a_comparison_is_named(comparison_once, tmp_path, undrawn):
    folder = Path(shutil.copytree(comparison_once, tmp_path / "it"))
    RunDirectory(folder / "lag-seed2").result.write_text("{")
    shutil.rmtree(folder / "stateful-seed1")
    failed = RunDirectory(folder / "stateful-seed2")
    failed.result.unlink()
    failed.write_failure(2, 7, HOSTILE)
    text = parsed(folder).text
    assert "3 of 4 runs are not finished; no table and no figure holds their arms." in text
    assert "lag-seed2 damaged The finished run" in text
    assert "stateful-seed1 missing It has not begun." in text
    assert f"stateful-seed2 failed {HOSTILE}" in text


@pytest.mark.parametrize("config", [None, "{"])
def test_the_network_of_a_comparison_is_known_without_its_first_run(comparison_once, tmp_path, undrawn, config):
    comparison.run_comparison(["lag"], 2, tmp_path, model="gru")
    first = RunDirectory(tmp_path / "lag-seed1")
    shutil.rmtree(first.path)
    if config is not None:
        first.path.mkdir()
        first.config.write_text(config)
    text = parsed(tmp_path).text
    assert "1 of 2 runs are not finished" in text
    assert "lag-seed2 damaged" not in text
    assert "compare --seeds 2 --model gru --arms lag" in text


@pytest.mark.parametrize("held", ["", "[]", '[{"arm": "no-such-arm", "seeds": 1}]', '[{"arm": "lag", "seeds": -1}]'])
def test_a_comparison_that_was_altered_is_refused(tmp_path, held):
    (tmp_path / "comparison.json").write_text(held)
    with pytest.raises(UserError, match="was altered: it names no arms"):
        write_report(tmp_path)


# Damage


def test_a_damaged_run_is_refused(finished, capsys):
    finished.result.write_text("{")
    assert main(["report", str(finished.path)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not finished.page.exists()


def test_each_run_of_a_sweep_that_is_not_finished_is_named(sweep, undrawn):
    names = sorted(path.parent.name for path in sweep.glob("*/result.json"))
    shutil.rmtree(sweep / names[0])
    RunDirectory(sweep / names[1]).result.write_text("{")
    failed = RunDirectory(sweep / names[2])
    failed.result.unlink()
    failed.write_failure(1, 7, HOSTILE)
    text = parsed(sweep).text
    assert "3 of 8 runs are not finished (1 failed, 1 damaged, 1 missing)" in text
    for name, words in zip(
        names, ("missing It has not begun.", "damaged The finished run", f"failed {HOSTILE}"), strict=False
    ):
        assert f"{name} {words}" in text
    assert "1 (1 not finished)" in text
    for name in names[:4]:  # a combination without any result
        RunDirectory(sweep / name).result.unlink(missing_ok=True)
    text = parsed(sweep).text
    assert "0 (2 not finished) - - - -" in text
    assert "not within 0" not in text


def test_the_command_of_a_directory_that_looks_like_a_flag_can_be_typed(finished, monkeypatch, undrawn):
    monkeypatch.chdir(finished.path.parent)
    finished.path.rename("-x")
    assert "echo_torch evaluate --run=-x" in parsed("-x").text


def test_a_sweep_without_any_result_has_a_page(sweep, undrawn):
    for path in sweep.glob("*/result.json"):
        path.unlink()
    assert "8 of 8 runs are not finished" in parsed(sweep).text


@pytest.mark.parametrize("what", ["nothing", "an empty directory", "a file"])
def test_what_is_neither_is_refused(tmp_path, capsys, what):
    path = tmp_path / "it"
    if what == "a file":
        path.touch()
    elif what != "nothing":
        path.mkdir()
    before = everything(tmp_path)
    assert main(["report", str(path)]) == 2
    expected = f"DIR must be the directory of a run or of a sweep. Got {str(path)!r}, which is neither.\n"
    assert capsys.readouterr().err == expected
    assert everything(tmp_path) == before
    with pytest.raises(RuleError, match="`run` must be the directory"):
        write_report(path)


def test_a_directory_in_which_a_training_works_is_refused(finished):
    with finished.lock(), pytest.raises(UserError, match="A training works in"):
        write_report(finished.path)
    assert not finished.page.exists()


# When it goes


def test_it_goes_where_the_run_goes_on(finished, monkeypatch):
    finished.page.touch()
    with monkeypatch.context() as patch:
        stop_at(patch, 20)
        with pytest.raises(StopError):
            train(short("stateful", updates=400, lag=6), finished, resume="auto", audit="count")
    assert finished.result.exists()
    assert not finished.page.exists()
    found = parsed(finished.path)
    assert "The run is not finished: 20 of 400 updates have a row." in found.text
    assert "accuracy by chunk on fresh sequences" not in found.text  # that of the shorter training


def test_it_stays_where_the_run_cannot_go_on(finished):
    finished.page.touch()
    before = everything(finished.path)
    with pytest.raises(UserError, match="cannot be continued with other options"):
        train(short("stateful", updates=18, lag=5), finished, resume="auto")
    assert everything(finished.path) == before


def test_it_goes_where_a_sweep_goes_on(sweep):
    member = RunDirectory(next(sweep.glob("*-seed2")))
    pages = [sweep / PAGE, member.page]
    for page in pages:
        page.touch()
    member.result.unlink()
    run_sweep(grid_of("aligned", GRID, 2, OPTIONS), sweep, executor=Here())
    assert member.result.exists()
    assert not any(page.exists() for page in pages)


def test_it_is_the_same_each_time(finished):
    first = write_report(finished.path).read_bytes()
    assert write_report(finished.path).read_bytes() == first


# What it cannot do


@given(st.text(st.characters(), max_size=30) | st.sampled_from([HOSTILE, "\ud800", "\u202e", "\x00"]))
def test_a_text_stays_a_text(text):
    found = Parsed(tag("p", text, title=text))
    assert "".join(found.words) == visible(text)
    assert found.elements == [("p", {"title": visible(text)})]
    html(text).encode()  # no half of a letter


def test_what_is_html_already_is_not_escaped_again():
    assert tag("p", tag("b", "1 < 2")) == "<p><b>1 &lt; 2</b></p>"


def test_names_that_would_be_code_are_text(finished, tmp_path, undrawn):
    for name in (HOSTILE.replace("/", ""), "a\udcff\u202eb", "$x^2$"):
        folder = tmp_path / name
        shutil.copytree(finished.path, folder)
        found = parsed(folder)
        assert f"Run {visible(name)}" in found.text
        assert not found.named("script")


def test_a_hostile_option_of_a_sweep_is_text_in_figures_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["$\\frac$&<b>.txt", "\u202e'\".txt"]
    for name in names:
        Path(name).write_text(" ".join(str(number % 10) for number in range(400)))
    run_sweep(
        grid_of("aligned", {"data": names}, 1, {"updates": 4, "hidden_size": 3, "lanes": 2}), "it", executor=Here()
    )
    found = parsed("it")
    assert all(visible(name) in found.text for name in names)
    assert not found.named("b")


@pytest.mark.parametrize("which", ["page_of_run", "page_of_sweep"])
def test_it_needs_no_other_file_and_runs_nothing(which, request):
    path = request.getfixturevalue(which)
    text, found = path.read_text(), Parsed(path.read_text())
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(one["content"] for one in found.named("meta") if "http-equiv" in one)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert {name for name, _ in found.elements}.isdisjoint({"script", "link", "img", "image", "iframe", "object", "a"})
    for _, attributes in found.elements:
        assert not {name for name in attributes if name == "style" or name == "src" or name.startswith("on")}
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("which", ["page_of_run", "page_of_sweep"])
def test_each_figure_can_be_read_aloud_and_refers_to_itself(which, request):
    found = Parsed(request.getfixturevalue(which).read_text())
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for svg in found.named("svg"):
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= set(ids)
    referred = {attributes["href"][1:] for _, attributes in found.elements if "href" in attributes}
    referred |= {
        name
        for _, attributes in found.elements
        for value in attributes.values()
        for name in re.findall(r"url\(#(.*?)\)", value or "")
    }
    assert referred
    assert referred <= set(ids)
    for attributes in found.named("div"):
        if attributes.get("class") == "box":
            assert attributes["aria-label"]


def test_colours_turn_with_the_page_but_not_those_of_a_map(page_of_sweep):
    text = page_of_sweep.read_text()
    found = Parsed(text)
    values = {attributes.get("fill") for _, attributes in found.elements}
    assert "var(--_000000, #000000)" in values
    assert "#ffffff" in values or "#fde737" in values  # letters and areas of a map
    assert "var(--_fde737, #fde737)" not in values
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    used = {name for value in values if value for name in re.findall(r"var\((--_\w+)", value)}
    assert all(f"{name}:#" in style for name in used)


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("color", ["#000000", "#0072b2", "#d55e00", "#009e73", "#1a1a1a", "#666666"])
def test_what_is_seen_on_light_ground_is_seen_on_dark_one(color):
    """Three to one, as WCAG 2 asks of what is drawn."""
    for ink, paper in ((color, "#ffffff"), (on_dark(color), on_dark("#ffffff"))):
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_two_figures_of_a_page_share_no_names(finished):
    figures = Figures()
    draw = partial(page_run.draw_curve, finished, finished.read_config(), finished.read_result())
    one, other = (figures.add(draw, "a", "b") for _ in range(2))
    assert not set(re.findall(r' id="(.*?)"', one)) & set(re.findall(r' id="(.*?)"', other))


# In a browser


def in_a_browser(test):
    """What only a browser shows; what the page holds is tested above, without one."""
    how = "chromium is not on the PATH (Debian: apt-get install chromium)"
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason=how)(test))


@in_a_browser
def test_a_browser_shows_it_without_a_request_a_message_or_an_overflow(finished, sweep, tmp_path):
    failed = RunDirectory(next(sweep.glob("*-seed2")))
    failed.result.unlink()
    failed.write_failure(1, 7, HOSTILE + "x" * 300)
    with browser(tmp_path / "profile") as tab:
        for path in (write_report(finished.path), write_report(sweep)):
            for width in (360, 1280):
                grounds = []
                for scheme in ("light", "dark"):
                    tab.open(path.as_uri(), width, scheme)
                    assert tab.requests == [path.as_uri()]
                    assert tab.messages == []
                    assert tab.value_of("window.innerWidth") == width
                    assert tab.value_of("document.documentElement.scrollWidth") <= width
                    assert tab.value_of("[...document.querySelectorAll('svg')].every(s => s.getBBox().width > 100)")
                    grounds.append(tab.value_of("getComputedStyle(document.body).backgroundColor"))
                    grounds.append(tab.value_of("getComputedStyle(document.querySelector('svg')).fill"))
                assert grounds == ["rgb(255, 255, 255)", "rgb(0, 0, 0)", "rgb(22, 25, 29)", "rgb(230, 230, 230)"]


@in_a_browser
def test_the_browser_of_these_tests_notices_requests_messages_and_overflow(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<meta name=viewport content='width=device-width'><img src=no.png><script>console.log(1)</script><pre>"
        + "x" * 999
    )
    with browser(tmp_path / "profile") as tab:
        tab.open(page.as_uri(), 360, "light")
        assert len(tab.requests) == 2
        assert len(tab.messages) >= 1
        assert tab.value_of("document.documentElement.scrollWidth") > 360


@pytest.mark.parametrize("command", ["report", "evaluate --run", "predict 1 0 1 0 1 --run"])
def test_a_configuration_that_was_changed_is_not_the_one_of_the_run(finished, capsys, command):
    text = finished.config.read_text()
    assert "\nlag: 6\n" in text
    finished.config.write_text(text.replace("\nlag: 6\n", "\nlag: 5\n"))
    assert main([*command.split(), str(finished.path)]) == 2
    said = capsys.readouterr()
    assert "are not of the same training: lag is 5 in the first, 6 in the other." in said.err
    assert said.out == ""
