import pytest

from echo_torch import configure
from echo_torch.builders import build_reach
from echo_torch.experiments import memory_length
from echo_torch.report import ahead_line, answer_line, explanation_lines, implication


def imply(accuracy, mode="aligned", **options):
    c = configure(mode, **options)
    found = build_reach(c)
    result = {
        "accuracy": accuracy, "accuracy_low": accuracy - 0.002, "accuracy_high": accuracy + 0.002,
        "ceiling": found.ceiling, "chance": 1 / c.vocabulary_size,
    }  # fmt: skip
    return implication(found, result, memory_length(c))


@pytest.mark.parametrize(
    ("accuracy", "options", "words"),
    [
        (0.999, {}, "what could be learned was learned"),
        (0.01, {"mode": "stateful"}, "no training could have learned anything"),
        (0.5, {}, "lies between chance and the ceiling"),
        (0.01, {"lag": 2}, "This is chance, although the data path allows 100.0%"),
        (0.01, {"model": "mlp", "lag": 5}, "this network sees the last 5 symbols alone; the answer lies 5 back"),
        (0.01, {"model": "memoryless"}, "sees the current symbol alone; the answer lies 1 back"),
        (0.5, {"model": "mlp", "lag": 4}, "lies between chance and the ceiling"),
    ],
)
def test_what_a_result_means(accuracy, options, words):
    assert words in imply(accuracy, **options)


def test_no_ceiling_no_claim():
    found = build_reach(configure("aligned"))
    assert "not known" in implication(found, {"accuracy": 0.5, "ceiling": None, "chance": 0.01})
    assert implication(found, {"accuracy": None, "ceiling": None, "chance": 0.01}) == "Nothing was asked."


def test_ahead_claims_randomness_only_where_it_was_measured():
    assert "drawn independently" in ahead_line(102, 10_000, 100)
    assert "not random" in ahead_line(300, 10_000, 100)


def test_answers_and_explanations():
    assert answer_line(2, 1, [7, 8, 9], 8, [(8, 0.5)]) == "after position 2: 8 for position 1, right; 8 (50.0%)"
    assert answer_line(2, 1, [7, 8, 9], 3, []) == "after position 2: 3 for position 1, the number there is 8"
    assert explanation_lines([7], []) == []
    assert explanation_lines([7], [0.5])[1] == "  position 0, 7: in 50% of the replacements ##########"
