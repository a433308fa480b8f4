import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_torch import configure
from echo_torch.errors import Interrupted, RuleError, UserError, plain

ERROR = RuleError(
    "lag", "$lag must be smaller than $window", "lag 5 with $window", reason="so that it fits", way_out="change $window"
)


def flags(name):
    return f"--{name}"


def test_a_rule_is_worded_where_it_is_read():
    assert str(ERROR) == (
        "`lag` must be smaller than `window`, so that it fits. Got lag 5 with $window; change `window`."
    )
    assert ERROR.wording(flags) == (
        "--lag must be smaller than --window, so that it fits. Got lag 5 with $window; change --window."
    )
    assert (ERROR.name, ERROR.reason, ERROR.got) == ("lag", "so that it fits", "lag 5 with $window")


def test_parts_that_are_not_there_leave_nothing():
    assert str(RuleError("a", "$a must be there")) == "`a` must be there."
    assert str(RuleError("a", "$a must be 1", 2)) == "`a` must be 1. Got 2."
    assert str(RuleError("a", "$a must be 1", way_out="leave it out")) == "`a` must be 1. Leave it out."
    assert str(UserError("No.")) == "No."
    assert UserError("No.", "Use $run.").wording(flags) == "No. Use --run."


def test_it_is_a_value_error_for_wrong_types_too():
    for value in (-1, "x", None, []):
        with pytest.raises(RuleError) as caught:
            configure("lag", hidden_size=value)
        assert isinstance(caught.value, ValueError)
        assert caught.value.name == "hidden_size"


@given(st.text())
def test_what_a_user_wrote_is_never_a_template(text):
    error = RuleError("run", f"$run cannot be {plain(text)}", text, way_out=f"not {plain(text)}")
    assert error.wording(flags) == f"--run cannot be {text}." + (f" Got {text}; not {text}." if text else " Not .")


def test_errors_go_from_process_to_process():
    for error in (ERROR, UserError("No.", "Use $run."), Interrupted(2, "Stopped.", "Use $run.")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert copy.wording(flags) == error.wording(flags)
