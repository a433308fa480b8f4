"""The help of a command: what each flag does, and in a mode its flags alone with the defaults there."""

import re

import pytest

from echo_torch import EXPERIMENTS, configure
from echo_torch.cli import main
from echo_torch.experiments.options import OPTIONS


def help_of(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_in(text):
    """Flag -> its help as one line."""
    found = re.findall(r"^  (--[a-z-]+)( .*?)?(?=^  --|^[a-z]|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {flag: " ".join(rest.split()) for flag, rest in found}


@pytest.mark.parametrize("command", ["train", "reach", "show"])
@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_a_mode_has_its_flags_and_defaults(capsys, command, mode):
    found = flags_in(help_of(capsys, f"{command} --mode {mode} --help"))
    options = configure(mode).to_dict()
    for name, option in OPTIONS.items():
        assert (option.flag in found) == (name in EXPERIMENTS[mode].options)
        value = options.get(name)
        if name in options and value is not None and name not in ("encoding", "base", "mlp_window"):
            (said,) = re.findall(r"\(default: ([^,)]+)", found[option.flag])
            shown = {"on": True, "off": False}.get(said, said)
            assert type(value)(shown) == value, name


def test_a_default_that_digits_change_says_so(capsys):
    assert configure("lag", encoding="digits").hidden_size == 128
    assert flags_in(help_of(capsys, "train --mode lag --help"))["--hidden-size"].endswith(
        "(default: 50, with digits 128)"
    )


def test_without_a_mode_all_flags_are_there_and_say_where_they_have_a_meaning(capsys):
    text = help_of(capsys, "train --help")
    found = flags_in(text)
    assert {option.flag for option in OPTIONS.values()} < set(found)
    assert found["--lanes"].endswith("(mode aligned; default: 32)")
    assert found["--window"].endswith("(modes lag, masked; default: 5)")
    assert found["--length"].endswith("(all modes but aligned; default: 25)")
    assert found["--batch-size"].endswith("default: 5; echo: 1; stateful: 6; sequence: 1)")
    assert found["--mlp-window"].count("default") == 1
    assert "as in --mode aligned --help" in text


def test_each_mode_has_a_line(capsys):
    lines = [line.strip() for line in help_of(capsys, "train --mode=lag --help").splitlines()]
    for mode, experiment in EXPERIMENTS.items():
        assert f"{mode}: {experiment.summary}" in lines


def test_the_last_mode_counts(capsys):
    assert "--lanes" in help_of(capsys, "train --mode=lag --help --mode aligned")


def test_a_mode_that_is_none_is_refused(capsys):
    assert main(["train", "--help", "--mode", "alignd"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("--mode must be one of echo, ")
    assert "(did you mean 'aligned'?)" in err


def test_a_usage_names_the_program(capsys):
    for words in ("--help", "train --help", "predict --help", "watch --help"):
        assert help_of(capsys, words).startswith(" ".join(["usage: echo-torch", *words.split()[:-1]]))


def test_each_command_has_a_line(capsys):
    lines = help_of(capsys, "--help").splitlines()
    assert any(
        re.match(r"    show +show before any training what an experiment reads, batch by batch$", line)
        for line in lines
    )
