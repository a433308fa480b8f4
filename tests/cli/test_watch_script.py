"""`python -m echo_torch watch` runs a script as Python itself does. The scripts here import no torch."""

import json
import sys

import pytest
from support.watched_scripts import ROOT, assert_same, both, run

from echo_torch.cli import main

PARSES = """
import argparse, os, sys
import neighbour
import __main__
parser = argparse.ArgumentParser()
parser.add_argument("--version", action="version", version="7")
parser.add_argument("-m")
parser.add_argument("--json")
parser.add_argument("rest", nargs="*")
print(parser.parse_args(), sys.argv, sys.path, os.getcwd(), neighbour.VALUE)
kept = ("__name__", "__file__", "__package__", "__doc__", "__cached__", "__annotations__")
print([globals()[name] for name in kept], __builtins__, type(__loader__), getattr(__spec__, "name", None))
print(sorted(globals()), sys.modules["__main__"] is __main__, __main__.__dict__ is globals())
print(sys.stdin.read(), sys.stdin.isatty(), sys.stdout.isatty())
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "neighbour.py").write_text("VALUE = 3\n")
    (tmp_path / "parses.py").write_text(PARSES)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(PARSES)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["parses.py", "-m", "x", "--json", "y", "--", "--force"], []),
        (["./parses.py", "--help"], ["--updates", "3"]),
        (["parses.py", "--version"], ["--"]),
        (["parses.py", "--updates", "3"], []),
        (["-m", "parses", "-m", "x"], ["--updates=3"]),
        (["-m", "package", "--help"], ["--"]),
    ],
)
def test_nothing_behind_the_script_is_read(folder, words, options):
    code = 2 if "--updates" in words else 0
    assert_same(words, folder, code=code, options=options, stdin="piped\n")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("train.py", "#!/usr/bin/env -S uv run --script"),
        ("train.py", "#!/bin/sh\n'exec' 'python3' \"$0\" \"$@\""),
        ("python_train", ""),
    ],
)
def test_python_that_names_no_python(tmp_path, name, first):
    (tmp_path / name).write_text(f"{first}\nprint('runs')")
    assert assert_same([name], tmp_path).out == "runs\n"


@pytest.mark.parametrize("flags", [["-P"], ["-I"], []])
def test_where_modules_are_looked_for(folder, flags):
    """In the folder of the script, the true one; under -P and -I not even there."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "link.py").symlink_to("../shows.py")
    (folder / "shows.py").write_text("import sys; print(sys.path, sys.flags, __file__)")
    alone = run(["elsewhere/link.py"], folder, flags=flags)
    if "-I" in flags:  # the environment does not lead to the package
        isolated = (
            f"import sys; sys.path.append({str(ROOT)!r}); import echo_torch.cli; "
            f"sys.path.remove({str(ROOT)!r}); echo_torch.cli.run(['watch', 'elsewhere/link.py'])"
        )
        watched = run(["-c", isolated], folder, flags=flags)
    else:
        watched = run(["elsewhere/link.py"], folder, flags=flags, options=[])
    assert alone.code == watched.code == 0
    assert watched.report
    assert watched.out == alone.out


# --- endings ----------------------------------------------------------------------------------------------------

ENDINGS = {
    "by itself": ("print(1)", 0),
    "a number": ("import sys; sys.exit(3)", 3),
    "a sentence": ("import sys; sys.exit('x')", 1),
    "an error": ("def fail():\n    1 / 0\nfail()", 1),
    "an error of an error": ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError(2) from e", 1),
    "no grammar": ("def", 1),
    "a missing import": ("import torch_that_is_not_there", 1),
    "a hook": ("import sys\nsys.excepthook = lambda k, e, t: print(k, e, t.tb_lineno, t.tb_next)\n1 / 0", 1),
    "a hook that fails": ("import sys\nsys.excepthook = lambda k, e, t: 1 / 0\n[][1]", 1),
    "the last traceback": (
        "import atexit, sys\natexit.register(lambda: print(sys.last_value, sys.last_traceback.tb_lineno))\n1 / 0", 1,
    ),
    "Ctrl-C": ("import os, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)", -2,
    ),
    "SIGTERM": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(9)", -15),
    "SIGTERM, answered": (
        "import os, signal, sys\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\nos.kill(os.getpid(), signal.SIGTERM)", 4,
    ),
    "SIGTERM, put back": (
        "import os, signal, time\nold = signal.signal(signal.SIGTERM, print)\nsignal.signal(signal.SIGTERM, old)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(9)", -15,
    ),
    "SIGTERM, handed on": (
        "import os, signal\ndef answer(*given):\n    print('told', callable(old))\n"
        "    if callable(old):\n        old(*given)\nold = signal.signal(signal.SIGTERM, answer)\n"
        "assert old == signal.SIG_DFL and signal.getsignal(signal.SIGTERM) is answer\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nassert signal.signal(signal.SIGTERM, old) is answer\n"
        "assert signal.signal(signal.SIGTERM, signal.SIG_IGN) == signal.SIG_DFL\n"
        "import _signal\nsignal.signal(signal.SIGCHLD, signal.SIG_DFL)\n"
        "assert _signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nprint('goes on')", 0,
    ),
    "a thread goes on": (
        "import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late')\n"
        "threading.Thread(target=late).start()", 0,
    ),
    "output that nobody reads": ("import os, sys\nos.close(1)\nos.close(2)", 120),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(tmp_path, name):
    source, code = ENDINGS[name]
    (tmp_path / "script.py").write_text(source)
    alone, watched = both(["script.py"], tmp_path)
    if name != "output that nobody reads":
        assert alone.code == code
        assert bool(watched.report) == (name != "no grammar")
    if name == "a hook that fails":  # Python shows the hook's caller, and the whole of the first error
        assert watched.err.splitlines()[-1] == alone.err.splitlines()[-1]
        return
    assert (watched.code, watched.out, watched.err) == (alone.code, alone.out, alone.err)


def test_what_the_interpreter_is_told_to_skip(tmp_path):
    """os._exit ends a process at once, without a report too."""
    (tmp_path / "script.py").write_text("import os; os._exit(5)")
    assert_same(["script.py"], tmp_path, code=5, has_report=False)


# --- the script's own processes ---------------------------------------------------------------------------------

PROCESSES = """
import atexit, multiprocessing, os, pickle, subprocess, sys

class Mine:
    pass

def square(number):
    return number * number, type(pickle.loads(pickle.dumps(Mine()))).__module__

def main():
    method = sys.argv[1]
    if method == "itself":
        print(subprocess.run([sys.executable, sys.argv[0], "fork"], capture_output=True, text=True).stdout)
        return
    if method == "os.fork":
        child = os.fork()
        if child == 0:
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return
    multiprocessing.set_start_method(method)
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(3)))
    process = multiprocessing.Process(target=square, args=(Mine,))
    process.start()
    process.join()
    print(process.exitcode, sys.modules["__mp_main__"] is sys.modules["__main__"])

if __name__ == "__main__":
    atexit.register(lambda: print(pickle.loads(pickle.dumps(Mine())).__class__))
    main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "os.fork", "itself"])
def test_processes_of_the_script(tmp_path, method):
    (tmp_path / "script.py").write_text(PROCESSES)
    watched = assert_same(["script.py", method], tmp_path)
    assert watched.report.count("echo_torch") == 0  # one report


TERMINATED = """
import _signal, os, signal, time
def terminated(before):
    child = os.fork()
    if child == 0:
        before()
        time.sleep(20)
        os._exit(0)
    if before is at_once:
        os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def at_once():
    pass
def itself():
    os.kill(os.getpid(), signal.SIGTERM)
def has_inherited_nothing():
    assert _signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the true one
    assert signal.signal(signal.SIGTERM, signal.SIG_DFL) == signal.SIG_DFL
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    itself()
def handles():
    print("inherited:", not signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
    itself()
print(terminated(itself), terminated(has_inherited_nothing), signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
for _ in range(50):
    if (code := terminated(at_once)) != -15:
        print("not reached:", code)
        break
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
blocked = os.fork() or os._exit(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
print(os.waitstatus_to_exitcode(os.waitpid(blocked, 0)[1]), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print(terminated(handles))
def sets_it_again():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert _signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    itself()
print(terminated(sets_it_again))
"""


def test_a_forked_process_is_ended_by_sigterm(tmp_path):
    """Also where it comes right behind the fork, as a pool ends its workers; a signal is not sent twice."""
    (tmp_path / "script.py").write_text(TERMINATED)
    watched = assert_same(["script.py"], tmp_path)
    assert watched.out.startswith("-15 -15 set()\n1 {")


def test_the_report_may_be_interrupted(tmp_path):
    """By a second Ctrl-C: that is a line, and no traceback."""
    source = """
import os, signal, sys
from echo_torch.cli.watched import Watched
Watched._result = lambda self: os.kill(os.getpid(), signal.SIGINT) or signal.sigtimedwait((), 9)
signal.signal(signal.SIGINT, signal.default_int_handler)
raise KeyboardInterrupt
"""
    (tmp_path / "script.py").write_text(source)
    alone, watched = both(["script.py"], tmp_path)
    assert watched.code == alone.code == -2
    assert watched.report == " was interrupted before it had told all.\n"
    assert watched.err == alone.err


def test_multiprocessing_knows_the_script_as_main(tmp_path):
    """Also where a package has imported it before its own `__main__` was there."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import multiprocessing")
    source = "import sys; print(sys.modules['__mp_main__'] is sys.modules['__main__'], __name__)"
    (tmp_path / "package" / "__main__.py").write_text(source)
    assert assert_same(["-m", "package"], tmp_path).out == "True __main__\n"


# --- what is asked of watch -------------------------------------------------------------------------------------


def test_a_file_is_where_it_was_said_to_be(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "script.py").write_text("import os; os.chdir('below'); print(os.getcwd())")
    assert_same(["script.py"], tmp_path, options=["--json", "found.json"])
    data = json.loads((tmp_path / "found.json").read_text())
    sentence = "The script has not imported torch, so there was nothing to watch."
    assert data == {"findings": [], "unknown": [sentence]}


def test_no_file_is_overwritten(tmp_path):
    (tmp_path / "script.py").write_text("print('runs')")
    (tmp_path / "found.json").write_text("mine")
    refused = run(["script.py"], tmp_path, options=["--json", "found.json"])
    assert (refused.code, refused.out) == (2, "")
    assert "nothing is overwritten" in refused.err
    assert (tmp_path / "found.json").read_text() == "mine"
    forced = run(["script.py"], tmp_path, options=["--json", "found.json", "--force"])
    assert (forced.code, forced.out) == (0, "runs\n")
    assert json.loads((tmp_path / "found.json").read_text())["findings"] == []


def test_a_file_that_the_script_has_made_meanwhile_stays(tmp_path):
    (tmp_path / "script.py").write_text("open('found.json', 'w').write('mine')")
    ended = run(["script.py"], tmp_path, options=["--json", "found.json"])
    assert ended.code == 0
    assert "nothing is overwritten" in ended.report
    assert (tmp_path / "found.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("", ["The script, or -m and a module", "train.py --epochs 1"]),
        ("-m", ["The script, or -m and a module"]),
        ("--jsn x script.py", ["'--jsn'", "did you mean '--json'?"]),
        ("--updates 0 script.py", ["--updates must be a whole number", "Got 0"]),
        ("--updates x script.py", ["--updates", "Got 'x'"]),
        ("--json", ["--json needs a value. Got none; write --json FILE."]),
        ("--intended rows-skp script.py", ["--intended", "did you mean 'rows-skip'?"]),
        ("--intended any script.py", ["--intended", "'any'"]),
        ("--fail-on all script.py", ["--fail-on", "'all'", "any"]),
        ("--json nowhere/found.json script.py", ["--json", "directory", "'nowhere/found.json'"]),
        ("--json folder script.py", ["--json must name a file, not a directory", "'folder'"]),
        ("--force --plot folder script.py", ["--plot must name a file, not a directory", "'folder'"]),
        ("--json new/ script.py", ["--json must name a file, not a directory", "'new/'"]),
        ("--json= script.py", ["--json must name a file", "Got ''"]),
        ("--json same --plot ./same script.py", ["--plot must name another file than --json", "'./same'"]),
        ("--plot binary script.py", ["--plot must name a file that is not there yet", "--force"]),
        ("--plot picture.pdf script.py", ["--plot must name a file that ends in .png or .svg", "'picture.pdf'"]),
        ("--plot nowhere/picture.png script.py", ["--plot", "directory", "'nowhere/picture.png'"]),
        ("--updates -3 script.py", ["--updates must be a whole number between 1", "Got -3"]),
        ("nothing.py", ["a file of Python source", "'nothing.py'", "No such file"]),
        ("folder", ["a file of Python source", "Is a directory"]),
        ("python script.py", ["leave the word out"]),
        ("/usr/bin/python3.11 script.py", ["leave the word out"]),
        ("torchrun script.py", ["launcher 'torchrun'", "torchrun --nproc-per-node 2 -m echo_torch watch train.py"]),
        ("launch.sh", ["launcher 'launch.sh'", "torchrun --nproc-per-node 2"]),
        ("launch", ["launcher 'launch'", "torchrun --nproc-per-node 2"]),
        ("-m torch.distributed.run script.py", ["launcher 'torch.distributed.run'", "torchrun --nproc-per-node 2"]),
        ("notebook.ipynb", ["notebook", "with echo_torch.watch(model)"]),
        ("binary", ["'binary', which is no text"]),
        ("-m .script", ["-m must name a module", "'.script'"]),
        ("-m ../script", ["-m must name a module", "'../script'"]),
        ("-m not_there", ["-m must name a module", "'not_there'"]),
        ("-m not_there.at_all", ["-m must name a module", "'not_there.at_all'"]),
        ("-m json", ["-m must name a module", "__main__", "'json'"]),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, words, parts):
    (tmp_path / "script.py").write_text("raise AssertionError('it has run')")
    (tmp_path / "launch.sh").write_text("python script.py")
    (tmp_path / "launch").write_text("#!/bin/sh\npython script.py")
    (tmp_path / "notebook.ipynb").write_text("{}")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["watch", *words.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert all(part in said.err for part in parts), said.err


def test_the_help_names_all_kinds(capsys):
    with pytest.raises(SystemExit) as end:
        main(["watch", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "[options] [--] (script.py | -m module) [args ...]" in shown
    assert "padding-read" in shown


def test_a_script_that_comes_through_a_pipe(tmp_path):
    """It can be read once."""
    assert_same(["/dev/stdin"], tmp_path, stdin="print(1)")
