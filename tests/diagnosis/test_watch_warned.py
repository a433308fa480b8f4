"""Warnings under `watch` are those that a script would have without it: of its lines, as often, by its filters."""

import contextlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echo_torch import watch

ONE, OTHER = torch.ones(2, 1), torch.ones(2)


def warn():
    """By C, by Python, inside of torch, and by the script itself; some twice from one line."""
    for _ in range(2):
        torch.tensor(OTHER)
    torch.tensor(OTHER)
    for _ in range(2):
        F.mse_loss(ONE, OTHER)
    nn.MSELoss()(ONE, OTHER)
    warnings.warn("mine", stacklevel=1)


def warned(*, is_watched, action, module=""):
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings(record=True) as found, watch() if is_watched else contextlib.nullcontext():
        warnings.resetwarnings()
        warnings.simplefilter(action)
        if module:
            warnings.filterwarnings("ignore", module=module)
        warn()
    return [(each.filename, each.lineno, str(each.message)) for each in found]


@pytest.mark.parametrize(
    ("action", "module", "number"),
    [("always", "", 7), ("default", "", 5), ("module", "", 4), ("once", "", 4), ("always", __name__, 1)],
)
def test_warnings_are_those_of_the_script(action, module, number):
    alone, watched = (warned(is_watched=each, action=action, module=module) for each in (False, True))
    assert watched == alone
    assert len(alone) == number


def test_warnings_that_are_errors_are_raised():
    with watch() as seen, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.filterwarnings("error", module=__name__)
        with pytest.raises(UserWarning, match="copy construct"):
            torch.tensor(OTHER)
    assert seen.fault is None


def test_nothing_is_left_behind():
    before = warnings._showwarnmsg
    with watch():
        assert warnings._showwarnmsg != before
    assert warnings._showwarnmsg is before
    with watch():
        inner = warnings._showwarnmsg
        warnings._showwarnmsg = others = lambda message: inner(message)
    assert warnings._showwarnmsg is others
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    warnings._showwarnmsg = before
