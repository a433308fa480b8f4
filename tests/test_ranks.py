"""Who this process is: a launcher's variables are taken whole, or refused in a sentence."""

import pytest

from echo_torch.errors import RuleError
from echo_torch.ranks import Launch, check_launcher, is_first_rank, launched_rank, launched_ranks, num_devices_here

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "5",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "3",
}
TOGETHER = r"^RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set together or not at all, because a "


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (*WHOLE, "LOCAL_WORLD_SIZE", *SRUN, "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_what_a_launcher_says(monkeypatch):
    set_all(monkeypatch, WHOLE)
    assert check_launcher() == Launch(1, 1, 2, "127.0.0.1", 29500, 2)
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (2, 1, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first_rank()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"MASTER_ADDR": "somewhere", "MASTER_PORT": "nonsense"},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5", "SLURM_NODELIST": "a"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5"},  # the shell of a job of four tasks
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        {"JSM_NAMESPACE_SIZE": "1", "JSM_NAMESPACE_RANK": "0", "LSB_JOBID": "5"},
    ],
)
def test_started_alone(monkeypatch, variables):
    set_all(monkeypatch, variables)
    assert check_launcher() is None
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (None, 0, True)


def test_what_srun_says(monkeypatch):
    """The processes of a step find each other by what it sets, at a port that another step has not."""
    set_all(monkeypatch, SRUN)
    found = check_launcher()
    assert (found.rank, found.local_rank, found.num_ranks, found.num_local_ranks) == (2, 0, 3, 1)
    assert found.address == "gpu07"
    assert 10_000 <= found.port < 30_000
    assert found.way_to_be_alone == "unset SLURM_STEP_NUM_TASKS and SLURM_PROCID"
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert check_launcher().port != found.port
    set_all(monkeypatch, {"MASTER_ADDR": "elsewhere", "MASTER_PORT": "29500"})
    assert (check_launcher().address, check_launcher().port) == ("elsewhere", 29500)
    with pytest.raises(RuleError, match="`devices` must be 3, the number of processes that the launcher has started"):
        check_launcher(2)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("alone", "alone"),
        ("a,b", "a"),
        ("node[01-04,07],gpu3", "node01"),
        ("node[5]", "node5"),
        ("r[2-3]n[0,4]-ib,x", "r2n0-ib"),
        ("host-1.some.where", "host-1.some.where"),
    ],
)
def test_where_the_first_task_is(monkeypatch, names, first):
    set_all(monkeypatch, {**SRUN, "SLURM_STEP_NODELIST": names})
    assert check_launcher().address == first
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
    assert check_launcher().address == "127.0.0.1"


@pytest.mark.parametrize(
    ("counts", "node", "here"), [("2(x3),1", "3", 1), ("2(x3),1", "2", 2), ("4", "0", 4), ("", "0", 4), ("?", "9", 4)]
)
def test_how_many_tasks_a_machine_has(monkeypatch, counts, node, here):
    several = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": counts, "SLURM_NODEID": node}
    set_all(monkeypatch, {**SRUN, **several})
    assert check_launcher().num_local_ranks == here


def test_devices_of_one_machine(monkeypatch):
    set_all(monkeypatch, {**WHOLE, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"})
    assert num_devices_here(2) == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert num_devices_here(2) == 2


def test_torchrun_inside_of_a_scheduler(monkeypatch):
    set_all(monkeypatch, {**WHOLE, **SRUN})
    assert launched_ranks() == 2


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, TOGETHER + ".* Got RANK=1 without LOCAL_RANK, .* and MASTER_PORT; unset RANK, or start with"),
        ({"WORLD_SIZE": "abc"}, TOGETHER + ".* Got WORLD_SIZE=abc without RANK, .*; unset WORLD_SIZE, or"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, TOGETHER + ".* unset LOCAL_RANK and WORLD_SIZE, or start with torch"),
        ({**WHOLE, "MASTER_PORT": None}, TOGETHER + r".*=127.0.0.1 without MASTER_PORT; unset RANK, LOCAL_RANK and W"),
        ({**WHOLE, "WORLD_SIZE": "abc"}, r"^WORLD_SIZE must be a whole number from 1 on, .* Got WORLD_SIZE=abc; unset"),
        ({**WHOLE, "RANK": "-1"}, "^RANK must be a whole number from 0 on"),
        ({**WHOLE, "RANK": ""}, r"^RANK must be a whole number from 0 on, .* Got RANK=; unset"),
        ({**WHOLE, "RANK": "2"}, "^RANK must be below WORLD_SIZE, .* Got RANK=2 with WORLD_SIZE=2; unset"),
        ({**WHOLE, "LOCAL_RANK": "2"}, "^LOCAL_RANK must be below WORLD_SIZE"),
        ({**WHOLE, "WORLD_SIZE": "9" * 5000}, "^WORLD_SIZE must be a whole number"),
        ({**WHOLE, "MASTER_PORT": "65536"}, "^MASTER_ADDR and MASTER_PORT must be an address and a port below 65536"),
        ({**WHOLE, "MASTER_ADDR": " "}, "^MASTER_ADDR and MASTER_PORT must be"),
        (
            {**WHOLE, "LOCAL_WORLD_SIZE": "1"},
            "^LOCAL_RANK must be below LOCAL_WORLD_SIZE, .* LOCAL_WORLD_SIZE=1; unset",
        ),
        ({**WHOLE, "LOCAL_WORLD_SIZE": "no"}, "^LOCAL_WORLD_SIZE must be a whole number from 1 on"),
        (
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
            r"^SLURM_PROCID must be 0 where neither srun nor torchrun .* Got SLURM_PROCID=1; start torchrun inside",
        ),
        ({**SRUN, "SLURM_PROCID": "3"}, "^SLURM_PROCID must be below SLURM_STEP_NUM_TASKS, .* unset SLURM_STEP_NUM"),
        (
            {**SRUN, "SLURM_PROCID": None},
            "^SLURM_PROCID must be a whole number from 0 on, .* Got SLURM_PROCID=; unset ",
        ),
        ({**SRUN, "SLURM_LOCALID": "x"}, "^SLURM_LOCALID must be a whole number from 0 on, .* Got SLURM_LOCALID=x"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": ""}, "^SLURM_STEP_NUM_TASKS must be a whole number from 1 on"),
        ({**SRUN, "SLURM_STEP_NODELIST": ""}, r"^MASTER_ADDR must be set where SLURM_STEP_NODELIST does .* Set it, or"),
        ({**SRUN, "MASTER_PORT": "70000"}, "^MASTER_ADDR and MASTER_PORT must be an address and a port below 65536"),
        ({"JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "4"}, "the tasks of LSF .* unset JSM_NAMESPACE_SIZE and J"),
    ],
)
def test_a_launcher_in_part_is_refused(monkeypatch, variables, message):
    """And whoever asks meanwhile who speaks is told: this process."""
    set_all(monkeypatch, {name: value for name, value in variables.items() if value is not None})
    with pytest.raises(RuleError, match=message):
        check_launcher()
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (None, 0, True)
