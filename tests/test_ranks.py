"""Who this process is: a launcher's variables are taken whole, or refused in a sentence."""

import pytest

from echo_torch.errors import RuleError
from echo_torch.ranks import Launch, check_launcher, is_first_rank, launched_rank, launched_ranks

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TOGETHER = r"^RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set together or not at all, because a "


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (*WHOLE, "SLURM_NTASKS", "SLURM_PROCID", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_what_a_launcher_says(monkeypatch):
    set_all(monkeypatch, WHOLE)
    assert check_launcher() == Launch(1, 1, 2, "127.0.0.1", 29500)
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (2, 1, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first_rank()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"MASTER_ADDR": "somewhere", "MASTER_PORT": "nonsense"},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5", "SLURM_NODELIST": "a"},
        {"JSM_NAMESPACE_SIZE": "1", "JSM_NAMESPACE_RANK": "0", "LSB_JOBID": "5"},
    ],
)
def test_started_alone(monkeypatch, variables):
    set_all(monkeypatch, variables)
    assert check_launcher() is None
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (None, 0, True)


def test_torchrun_inside_of_a_scheduler(monkeypatch):
    set_all(monkeypatch, {**WHOLE, "SLURM_NTASKS": "2", "SLURM_PROCID": "1"})
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
        ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "5"}, r"^SLURM_NTASKS must be 1 and SLURM_PROCID 0 where torchrun has"),
        (
            {"SLURM_PROCID": "1"},
            r"the tasks of SLURM do not .* Got SLURM_PROCID=1; start torchrun inside of it, or ask",
        ),
        ({"SLURM_NTASKS": "abc"}, r"Got SLURM_NTASKS=abc; .* or unset SLURM_NTASKS\."),
        ({"JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "4"}, "the tasks of LSF .* unset JSM_NAMESPACE_SIZE and J"),
    ],
)
def test_a_launcher_in_part_is_refused(monkeypatch, variables, message):
    """And whoever asks meanwhile who speaks is told: this process."""
    set_all(monkeypatch, {name: value for name, value in variables.items() if value is not None})
    with pytest.raises(RuleError, match=message):
        check_launcher()
    assert (launched_ranks(), launched_rank(), is_first_rank()) == (None, 0, True)
