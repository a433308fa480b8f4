"""Every command and every example of the documentation runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        *(f"docs/{page}.md" for page in ("experiments", "why", "own_project", "reliability", "performance")),
    )
}
CI = (ROOT / ".ci" / "run").read_text()


def code_blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def commands(page):
    """All commands of a page: its bash blocks, and what stands in backticks where no tests are named there."""
    lines = [line for block in code_blocks(page, "bash") for line in block.strip().splitlines()]
    if page not in ("docs/reliability.md", "docs/performance.md"):
        prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
        lines += re.findall(r"`(python [^`]+|pip [^`]+)`", prose)
    return list(dict.fromkeys(part.strip() for line in lines for part in line.split("&&")))


def run(command, folder, **options):
    words = shlex.split(command)
    words = [sys.executable if words[0] == "python" else words[0], *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, **options)


def test_there_are_commands():
    assert "python train.py --mode lag" in commands("README.md")
    assert sum(len(commands(page)) for page in PAGES) >= 25


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 7000


@pytest.mark.parametrize("page", sorted({*PAGES, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}))
def test_links_lead_somewhere(page):
    """To a file, and to a heading in it."""
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE) if heading else []
        names = [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings]
        assert not heading or heading in names, link


@pytest.mark.slow
def test_what_the_page_of_sweeps_says_runs(tmp_path):
    text = (ROOT / "docs" / "sweeps.md").read_text()
    (command,), (program,), (grid,) = (
        re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL) for kind in ("bash", "python", "yaml")
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "grid.yaml").write_text(grid)
    (promised,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    dry = run(f"{command} --dry-run", tmp_path)
    counted = ("runs", "updates", "stacks", "files")
    assert [line for line in dry.stdout.splitlines() if line.startswith(counted)] == [
        line for line in promised.splitlines() if line.startswith(counted)
    ]
    assert run("python -m echo_torch sweep --config grid.yaml --dry-run", tmp_path).stdout.startswith("runs: 960\n")
    printed = run("python program.py", tmp_path)
    assert (printed.returncode, len(printed.stdout.splitlines())) == (0, 16), printed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page, "python")])
def test_examples(tmp_path, page):
    for number, block in enumerate(code_blocks(page, "python")):
        path = tmp_path / f"example_{number}.py"
        path.write_text(block)
        found = run(f"python {path.name}", tmp_path)
        assert found.returncode == 0, found.stderr
        if "accuracy {" in block:
            assert float(re.search(r"accuracy ([\d.]+)%", found.stdout)[1]) > 95


def sample_of(command):
    """A training that names no budget is cut short: the claims train it whole. With ALL_CLAIMS=1 it is not."""
    is_training = re.match(r"python (train\.py|-m echo_torch train) ", command)
    has_budget = re.search(r"--(updates|sequences|help|config)\b", command)
    is_whole = not is_training or has_budget or os.environ.get("ALL_CLAIMS") == "1"
    return command if is_whole else f"{command} --updates 500"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands(tmp_path, page):
    """Each is run, in order; those that take long are run by the checks themselves."""
    for name in ("train.py", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in commands(page):
        if command.startswith("pip install 'tensorboard") or "--index-url" in command:  # another environment
            continue
        if command.startswith("pip") or "pytest" in command or "benchmarks" in command:
            assert command.split(" -m claims")[0].removeprefix("pip install ") in CI
            continue
        if command in ("python -m echo_torch map", "python train.py --model") or command.startswith(
            "python train.py = "
        ):
            # minutes; no whole commands
            continue
        found = run(sample_of(command), tmp_path)
        assert found.returncode == 0, (command, found.stderr)


def test_the_file_tree_is_complete():
    """Every module stands under its wing, and nothing that is not there."""
    tree = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)[1]
    shown, folders = set(), []
    for line in tree.split("echo_torch/\n")[1].split("tests/<wing>")[0].splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 4 - 1
        folders[depth:] = [name] if name.endswith("/") else []
        if not name.endswith("/"):
            shown.add("".join(folders) + name)
    package = ROOT / "echo_torch"
    assert shown == {str(path.relative_to(package)) for path in package.rglob("[a-z]*.py")}


@pytest.mark.slow
def test_the_readme_shows_what_its_commands_print(tmp_path):
    for name in ("train.py", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    shown = re.findall(r"```bash\n(.*?)```\n+```text\n(.*?)```", PAGES["README.md"], flags=re.DOTALL)
    shown += re.findall(r"```text\n\$ (.*?)\n(.*?)```", PAGES["README.md"], flags=re.DOTALL)
    assert len(shown) == 3
    for command, lines in shown:
        found = run(command.strip().split(" && ")[-1], tmp_path)
        printed = {without_numbers_that_vary(line.rstrip()) for line in (found.stdout + found.stderr).splitlines()}
        promised = [without_numbers_that_vary(line.rstrip()) for line in lines.splitlines() if line != "..."]
        assert [line for line in promised if line not in printed] == []


def without_numbers_that_vary(line):
    """Probabilities, losses and wrong guesses hang on the machine's rounding; what is asked, and known, does not."""
    line = re.sub(r": \d+ (for position \d+, the number there is)", r": # \1", line)
    return re.sub(r"\d+\.\d+ ?%?|; .*\(.*%\).*", "#", line)


@pytest.mark.slow
def test_questions_print_what_they_say(tmp_path):
    text = (ROOT / "docs" / "questions.md").read_text()
    for name in ("train.py", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, program in re.findall(r"```python\n# (\S+)\n(.*?)```", text, flags=re.DOTALL):
        (tmp_path / name).write_text(program)
    blocks = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def shell(command):
        found = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, executable="/bin/bash"
        )
        return (found.stdout + found.stderr).splitlines()

    for command in blocks[0].splitlines():
        shell(command)
    checked = 0
    for example in re.findall(r"^\$ (.*)\n((?:(?!\$ |\n).+\n)*)", "\n".join(blocks[1:]), flags=re.MULTILINE):
        printed = {without_numbers_that_vary(line.rstrip()) for line in shell(example[0])}
        for line in example[1].splitlines():
            if line != "...":
                assert without_numbers_that_vary(line.rstrip()) in printed, (example[0], line, printed)
                checked += 1
    assert checked >= 20


@pytest.mark.slow
def test_the_promises_name_tests_that_exist():
    """Each command of docs/reliability.md selects something."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    commands = re.findall(r"`(?:FUZZ_EXAMPLES=\d+ )?python -m pytest (tests/[^`]+)`", text)
    assert len(commands) >= 20
    names = {}
    for mark in ("slow", "not claims and not slow"):
        collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", mark]
        names[mark] = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names["slow or not slow"] = [name for some in names.values() for name in some]
    for command in commands:
        words = shlex.split(command)
        mark = words[words.index("-m") + 1] if "-m" in words else "not claims and not slow"
        chosen = words[words.index("-k") + 1].split(" or ") if "-k" in words else [""]
        files = [word for word in words if word.startswith("tests/")]
        for word in chosen:  # of an alternative each part
            assert any(name.split("::")[0] in files and word in name for name in names[mark]), (command, word)
    for benchmark in re.findall(r"python (benchmarks/\S+\.py)", text):
        assert (ROOT / benchmark).exists()
