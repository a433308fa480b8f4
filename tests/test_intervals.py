import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_torch.intervals import Z_95, mean_and_interval, student_quantile, wilson_interval

# Fisher and Yates (1963), table III: two tails of 5 %.
PRINTED = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}


@pytest.mark.parametrize(("degrees", "value"), PRINTED.items())
def test_student_as_it_is_printed(degrees, value):
    assert student_quantile(degrees) == pytest.approx(value, abs=6e-4)


def test_student_falls_without_a_jump_to_the_normal_value():
    values = [student_quantile(degrees) for degrees in range(5, 120)]
    steps = [one - other for one, other in itertools.pairwise(values)]
    assert all(step > 0 for step in steps)
    assert all(later < earlier for earlier, later in itertools.pairwise(steps))
    assert student_quantile(10**6) == pytest.approx(Z_95, abs=1e-5)


def test_one_value_has_no_interval():
    assert mean_and_interval([0.5]) == (0.5, None)


@given(st.integers(1, 10**6), st.data())
def test_wilson_holds_the_share_and_solves_its_equation(asked, data):
    """Its ends are the shares from which the measured one is just 1.96 standard deviations away."""
    correct = data.draw(st.integers(0, asked))
    low, high = wilson_interval(correct, asked)
    assert 0 <= low <= correct / asked <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        deviation = abs(correct / asked - end) / math.sqrt(end * (1 - end) / asked)
        assert deviation == pytest.approx(Z_95, rel=1e-4)
