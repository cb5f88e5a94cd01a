"""What a run or a sweep found: the results table, its columns, and the sentence that sums it up."""

from collections import Counter
from collections.abc import Sequence

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.benchmarks import benchmarks_table
from tasks.record.pages.controllers import policies_table
from tasks.record.pages.lowest import comparison_told, lowest_told, pruned_and_best
from tasks.record.pages.tables import Column, Row, to_markdown

PHASES = ("prefill", "decode")


def results_of(run: str) -> list[Row]:
    """The rows of queries/results.sql, each with `dense`: the row of the dense model that it compares with.

    Raises ValueError if `run` names neither a run nor a sweep.
    """
    if not query_named("scope", run=run):
        latest = ", ".join(row["sweep"] or row["run"] for row in query_named("runs")[:3]) or "none yet"
        raise ValueError(f"run: {run!r} is not recorded; the latest are {latest}")
    rows = query_named("results", run=run)
    dense = {_text_of(row): row for row in rows if row["subject"] == "dense"}
    return [row | {"dense": dense.get(_text_of(row), {})} for row in rows]


def markdown_table(run: str) -> str:
    """The results table of a run or a sweep as Markdown; bold is the lowest perplexity of its pattern, and where that
    is not among all of the pattern, a sentence below says so.

    Of a run that trained a controller it is that of its policies, of one that asked benchmarks that of its scores.
    """
    rows = results_of(run)
    if not rows:
        return policies_table(run) or benchmarks_table(run)
    told = comparison_told(rows)
    return to_markdown(result_columns(rows), rows) + (f"\n{told}\n" if told else "")


def result_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the results table. What is the same in all rows (model, text, seed) has none."""
    varying = [
        _plain(title, name)
        for title, name in (("Model", "model"), ("Text", "source"), ("Window", "window"), ("Seed", "seed"))
        if len({row[name] for row in rows}) > 1
    ]
    sparse = {is_sparse_input(row) for row in rows if row["subject"] != "dense"}
    timed = [_speed(phase) for phase in PHASES if any(row[f"{phase}_ratio"] is not None for row in rows)]
    return [
        Column(title="Method", show=lambda row: name_of(row)[0], numeric=False, heads_row=True),
        Column(title="Pattern", show=lambda row: name_of(row)[1], numeric=False),
        *([Column(title="Sparse", show=_what_is_sparse, numeric=False)] if len(sparse) > 1 else []),
        *varying,
        Column(title="Perplexity", show=lambda row: units.digits(row["ppl"]), strong=lambda row: row["best"]),
        Column(title="nats/token", show=lambda row: units.digits(row["nll"])),
        Column(title="bits/byte", show=lambda row: units.digits(row["bits_per_byte"])),
        *_what_is_gone(rows),
        *([] if any(map(is_profile, rows)) or sparse == {True} else [_size()]),
        *([Column(title="Cache of 1,000 tokens", show=_cache)] if any(map(is_cut, rows)) else []),
        *timed,
        *([Column(title="Sparse linears", show=_sparse_linears)] if any(map(_could_run_sparse, rows)) else []),
    ]


def _what_is_gone(rows: Sequence[Row]) -> list[Column]:
    """Parameters where they differ, zeros where there are some, or where neither tells the models apart."""
    parameters = Column(title="Parameters", show=lambda row: units.count(row["parameters"]), note=_relative_parameters)
    title = "Not read" if any(map(is_sparse_input, rows)) else "Zeros"
    zeros = Column(title=title, show=lambda row: units.percent(row["sparsity"]), note=ranks_of)
    some_cut = any(map(is_cut, rows))
    some_zero = any(row["sparsity"] > 0 or row["largest_rank"] is not None for row in rows)
    return [parameters] * some_cut + [zeros] * (some_zero or not some_cut)


def is_cut(row: Row) -> bool:
    """Whether an evaluated model has fewer parameters than the dense one beside it."""
    return bool(row["dense"]) and row["parameters"] < row["dense"]["parameters"]


def is_profile(row: Row) -> bool:
    """Whether an evaluated model is a profile of the dense one, in force for the time being."""
    return row["subject"] not in ("dense", "pruned")


def is_sparse_input(row: Row) -> bool:
    """Whether an evaluated model has all its weights, and each token reads a part of them."""
    return row["subject"] != "dense" and row["flow"] == "activation"


def name_of(row: Row) -> tuple[str, str]:
    """Method and pattern of an evaluated model; the dense one has neither."""
    return ("dense", units.ABSENT) if row["subject"] == "dense" else (row["method"], row["pattern"])


def ranks_of(row: Row) -> str:
    """What stands beside the zeros of an evaluated model: `+ rank 12`, `+ ranks 12 to 18`, or nothing."""
    least, largest = row["least_rank"], row["largest_rank"]
    if largest is None:
        return ""
    return f"+ rank {largest}" if least == largest else f"+ ranks {least} to {largest}"


def overlap_of(run: str) -> str:
    """A sentence where a model was calibrated or trained on the very text that it is evaluated on; else nothing."""
    rows = query_named("overlap", run=run)
    did = "Trained" if any(row["role"] == "recovery" for row in rows) else "Calibrated"
    sources = ", ".join(dict.fromkeys(row["source"] for row in rows))
    return f"{did} on the text of the evaluation ({sources}): the score flatters." if sources else ""


def summary(rows: Sequence[Row]) -> str:
    """What a reader should remember, in a sentence or two; empty if no pruned model was evaluated."""
    pruned, best = pruned_and_best(rows)
    if not pruned:
        return ""
    dense = pruned[0]["dense"]
    if len(pruned) > 1:
        found = ", ".join(lowest_told(row, rows) for row in best)
        lowest = f" The lowest after pruning: {found}." if best else ""
        return f"The dense model's perplexity is {units.digits(dense['ppl'])}.{lowest} {_speed_sentence(pruned)}"
    [row] = pruned
    if is_sparse_input(row):
        return (
            f"Perplexity goes from {units.digits(dense['ppl'])} to {units.digits(row['ppl'])} where a token does not "
            f"need {units.percent(row['sparsity'])} of the weights of the blocks. {_speed_sentence(pruned)}"
        )
    return (
        f"Perplexity goes from {units.digits(dense['ppl'])} to {units.digits(row['ppl'])} with {_gone_in_words(row)}; "
        f"the weight files go from {units.size(dense['size_bytes'])} to {units.size(row['size_bytes'])}. "
        f"{_speed_sentence(pruned)}"
    )


def _gone_in_words(row: Row) -> str:
    if is_cut(row):
        return f"{units.percent(1 - row['parameters'] / row['dense']['parameters'])} of all parameters cut out"
    beside = f" beside factors ({ranks_of(row).removeprefix('+ ')})" if ranks_of(row) else ""
    return f"{units.percent(row['sparsity'])} of the weights in the pruned linears zero{beside}"


def _speed_sentence(pruned: Sequence[Row]) -> str:
    """What pruning did for the speed: a phase after the other, or both at once where the same is true of them."""
    if all(row[f"{phase}_ratio"] is None for phase in PHASES for row in pruned):
        return "Speed not measured."
    said: dict[str, list[str]] = {}
    for phase in PHASES:
        counts = Counter(_speed_in_words(row, phase) for row in pruned)
        words = (words if len(pruned) == 1 else f"{n} of {len(pruned)} {words}" for words, n in counts.items())
        said.setdefault(", ".join(words), []).append(phase)
    found = (" and ".join(phases) + ": " + words for words, phases in said.items())
    return f"Speed, {'; '.join(found)}."


def _speed_in_words(row: Row, phase: str) -> str:
    low, high = row[f"{phase}_low"], row[f"{phase}_high"]
    if low is None or high is None:
        return "not measured"
    if low <= 1 <= high:
        if is_sparse_input(row):
            return "no faster on this machine"
        smaller = row["size_bytes"] < row["dense"]["size_bytes"]
        return f"{'a smaller file, no' if smaller else 'neither a smaller file nor'} faster on this machine"
    return f"{row[f'{phase}_verdict']} on this machine"


def _text_of(row: Row) -> tuple[str, str, int]:
    return row["model_hash"], row["source"], row["window"]


def _size() -> Column:
    """Of files, which profiles have together with the dense model."""
    return Column(title="Size", show=lambda row: units.size(row["size_bytes"]), note=_relative_size)


def _what_is_sparse(row: Row) -> str:
    if row["subject"] == "dense":
        return units.ABSENT
    return "inputs" if is_sparse_input(row) else "weights"


def _plain(title: str, name: str) -> Column:
    return Column(title=title, show=lambda row: str(row[name]), numeric=name in ("window", "seed"))


def _relative_parameters(row: Row) -> str:
    return units.ratio(row["parameters"] / row["dense"]["parameters"]) if is_cut(row) else ""


def _relative_size(row: Row) -> str:
    if row["subject"] == "dense" or not row["dense"]:
        return ""
    return units.ratio(row["size_bytes"] / row["dense"]["size_bytes"])


def _cache(row: Row) -> str:
    """Of a sequence, in memory beside the weights."""
    return units.ABSENT if row["kv_bytes"] is None else units.size(row["kv_bytes"])


def _could_run_sparse(row: Row) -> bool:
    """Whether a pruned model was timed where the kernels for 2:4 are; rows of before that column do not say."""
    return row["subject"] != "dense" and row["timed_on"] == "cuda"


def _sparse_linears(row: Row) -> str:
    """How many linears really ran on the kernels for 2:4, which refuse some dtypes and shapes."""
    if not _could_run_sparse(row):
        return units.ABSENT
    return units.count(row["sparse_linears"]) if row["sparse_linears"] else "no linear ran sparse"


def _speed(phase: str) -> Column:
    """The dense model's speed in tokens a second; of the others the ratio to it, its interval and what that means."""

    def show(row: Row) -> str:
        if row["subject"] == "dense":
            return f"{units.count(row[f'{phase}_tokens_per_s'])} tokens/s"
        return units.ratio(row[f"{phase}_ratio"])

    def note(row: Row) -> str:
        if row["subject"] == "dense" or row[f"{phase}_ratio"] is None:
            return ""
        return f"[{row[f'{phase}_low']:.2f}, {row[f'{phase}_high']:.2f}] {row[f'{phase}_verdict']}"

    return Column(title=f"{phase.capitalize()} speed", show=show, note=note)
