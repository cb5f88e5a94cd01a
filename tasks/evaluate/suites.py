"""Which benchmarks there are by one name: the sets of the reference projects, in the names of lm-eval's tasks."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A task of lm-eval, or a group of them, and how many solved examples stand before a question.

    `few_shot` None: as many as the task itself says. A task that insists on 0, as those of TruthfulQA do, whose prompt
    has six examples of its own, keeps its 0 whatever is asked; a row has the number that was used.
    """

    task: str
    few_shot: int | None = None


ZERO_SHOT = (
    "arc_easy", "arc_challenge", "hellaswag", "openbookqa", "piqa", "winogrande", "social_iqa", "boolq", "rte", "mnli",
    "lambada_openai",
)  # fmt: skip
SUITES: dict[str, tuple[Benchmark, ...]] = {
    "zero_shot": tuple(Benchmark(task=task, few_shot=0) for task in ZERO_SHOT),
    "few_shot": (
        Benchmark(task="truthfulqa_mc1", few_shot=1),
        Benchmark(task="truthfulqa_mc2", few_shot=1),
        Benchmark(task="agieval_nous", few_shot=0),
        Benchmark(task="mmlu", few_shot=5),
    ),
    "wikitext": (Benchmark(task="wikitext", few_shot=0),),
}

FOLDERS = {  # of lm-eval's tasks: to read the task files in one takes no time, to read all 13,000 takes ten seconds
    "arc_easy": "arc",
    "arc_challenge": "arc",
    "hellaswag": "hellaswag",
    "openbookqa": "openbookqa",
    "piqa": "piqa",
    "winogrande": "winogrande",
    "social_iqa": "siqa",
    "boolq": "super_glue/boolq",
    "copa": "super_glue/copa",
    "rte": "glue/rte",
    "mnli": "glue/mnli",
    "lambada_openai": "lambada",
    "truthfulqa_mc1": "truthfulqa",
    "truthfulqa_mc2": "truthfulqa",
    "agieval_nous": "agieval",
    "mmlu": "mmlu/default",
    "wikitext": "wikitext",
}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a benchmark is asked. `limit`: of each task only the first so many questions; None for all.

    `chat`: in the tokenizer's chat template. `seed`: of the examples that are drawn.
    """

    benchmark: Benchmark
    limit: int | None
    batch: int
    chat: bool
    seed: int


def parse_suite(text: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a suite, or of a comma list of suites and of lm-eval's tasks and groups.

    Raises ValueError for an empty name and for a task that is named twice. Whether lm-eval has a task is asked of it
    (tasks.evaluate.harness.members).
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(f"suite: {text!r} has an empty name; valid is {', '.join(SUITES)}, or names of tasks")
    found = tuple(each for name in names for each in SUITES.get(name, (Benchmark(task=name),)))
    (task, times), *_ = Counter(each.task for each in found).most_common(1)
    if times > 1:
        raise ValueError(f"suite: {task} is named {times} times; name it once")
    return found
