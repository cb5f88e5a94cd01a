"""Named suites of benchmarks: what is in them, and names that cannot be meant."""

import pytest

from tasks.evaluate.suites import FOLDERS, SUITES, Benchmark, parse_suite


def test_the_suites_are_those_of_the_reference_projects():
    zero = ["arc_easy", "arc_challenge", "hellaswag", "openbookqa", "piqa", "winogrande", "social_iqa", "boolq", "rte"]
    assert [each.task for each in parse_suite("zero_shot")] == [*zero, "mnli", "lambada_openai"]
    assert {each.few_shot for each in parse_suite("zero_shot")} == {0}
    few = {each.task: each.few_shot for each in parse_suite("few_shot")}
    assert few == {"truthfulqa_mc1": 1, "truthfulqa_mc2": 1, "agieval_nous": 0, "mmlu": 5}
    assert {each.task for suite in SUITES.values() for each in suite} <= set(FOLDERS)


def test_suites_and_tasks_can_be_named_together():
    assert parse_suite("wikitext, copa") == (*SUITES["wikitext"], Benchmark(task="copa"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "suite: '' has an empty name"),
        ("copa,,rte", "empty name"),
        ("zero_shot,rte", "suite: rte is named 2 times"),
    ],
)
def test_a_mistake_is_named(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        parse_suite(text)
