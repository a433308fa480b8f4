"""Several processes train as one only where they were told the same and see the same."""

import re

import pytest
from support import runs

from echo_torch.errors import RuleError, UserError
from echo_torch.lab import agreement
from echo_torch.lab.agreement import check_agreement, found_by_all
from echo_torch.lab.plan import Plan
from echo_torch.training.checkpoints import RUN_KEY, Checkpoint


@pytest.fixture
def beside(monkeypatch):
    """Let another process, the first one, give something where this one gives its own."""

    def beside(other):
        monkeypatch.setattr(agreement, "gather", lambda own: [other, own])

    return beside


def seen(plan, start=None):
    return plan.configuration.to_dict(), (plan.digest, plan.model_digest), agreement._mark(start)


def checkpoint(update, seconds):
    return Checkpoint("last.ckpt", {RUN_KEY: {"seconds": seconds}}, update)


def test_alone_there_is_nothing_to_agree_on():
    check_agreement(Plan(runs.short()), None)
    assert found_by_all(lambda: 5) == 5
    with pytest.raises(UserError, match=r"^No\.$"):
        found_by_all(refuse)


def refuse():
    raise UserError("No.")


def test_what_another_has_not_found_is_said_by_all(beside):
    beside(UserError("Not there."))
    with pytest.raises(UserError, match=r"^Not there\.$"):
        found_by_all(lambda: 5)
    with pytest.raises(UserError, match=r"^No\.$"):
        found_by_all(refuse)
    beside(None)
    assert found_by_all(lambda: None) is None


def test_the_same_is_taken(beside):
    plan = Plan(runs.short(devices=2))
    beside(seen(plan, checkpoint(5, 1.5)))
    check_agreement(plan, checkpoint(5, 1.5))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            seen(Plan(runs.short(seed=7))),
            "`seed` must be the same in all processes .* Got 7 in the first process and 1 in",
        ),
        (
            seen(Plan(runs.short()), checkpoint(5, 1.5)),
            "see the same checkpoint in `run`, .* Got update 5 in the first process and none in another; put `run` on",
        ),
        ((seen(Plan(runs.short()))[0], ("abc", None), None), "`data` must be the same numbers in all processes"),
        (
            (seen(Plan(runs.short()))[0], (None, "abc"), None),
            "`model` must be the same source of a model of your own in",
        ),
    ],
)
def test_another_thing_is_refused(beside, other, message):
    beside(other)
    with pytest.raises(RuleError, match=message):
        check_agreement(Plan(runs.short()), None)


def test_two_checkpoints_of_the_same_update_are_two(beside):
    """One was written by a training that was given up."""
    plan = Plan(runs.short())
    beside(seen(plan, checkpoint(5, 1.5)))
    with pytest.raises(RuleError, match=re.escape("Got update 5 in the first process and update 5 in another")):
        check_agreement(plan, checkpoint(5, 1.6))
