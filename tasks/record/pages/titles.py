"""What runs are called together: how many they are, and whether their sweep has come to its end."""

from collections.abc import Sequence

from tasks.record.pages.tables import Row


def title(run: str, runs: Sequence[Row]) -> str:
    """Of the page of `run`, a run or a sweep; `runs` are the rows of queries/scope.sql."""
    models = " and ".join(dict.fromkeys(row["model"] for row in runs))
    if [row["run"] for row in runs] == [run]:
        return f"{runs[0]['method']} {runs[0]['pattern']} on {models}"
    return f"{models}: {how_many(runs)}{' compared' if len(runs) > 1 and is_finished(runs) else ''}"


def how_many(runs: Sequence[Row]) -> str:
    """`7 runs`, or `3 of 7 runs, not finished` of a sweep that was stopped or still goes on."""
    if not is_finished(runs):
        return f"{len(runs)} of {runs[0]['sweep_points']} runs, not finished"
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}"


def is_finished(runs: Sequence[Row]) -> bool:
    """Whether a sweep has all the runs it was to have; rows of before that was stored do not say, and pass."""
    return len(runs) >= (runs[0]["sweep_points"] or 0)


def reuse_told(runs: int, stages: int, cached: int) -> str:
    """How many of the stages of so many runs were not computed in them, and why."""
    told = f"{cached} of {stages} stages were found finished"
    if cached == 0:
        return told
    return f"{told}: what runs of a sweep share is computed once" if runs > 1 else f"{told}, from earlier runs"
