"""Names made of what users give: a folder's name, a pattern, a run. What they become is safe in a path and a filter."""

import re


def registered_name(model: str, model_hash: str) -> str:
    """espalier-<model>-<8 digits of the dense model's hash>: folders of one name may hold different models."""
    return f"espalier-{plain(model) or 'model'}-{model_hash[:8]}"


def pattern_alias(pattern: str) -> str:
    """best-2of4 for 2:4, best-50pct for 50% however its zeros are chosen (50%@matrix), best-minus-30pct for -30%.

    MLflow allows no dot in it.
    """
    size = pattern.partition("@")[0].replace("-", "minus-").replace(":", "of").replace("%", "pct").replace(".", "-")
    return f"best-{plain(size)}"


def plain(text: str) -> str:
    """Letters, digits, '_', '.' and '-' of the text, a '-' for each other character, none at its ends."""
    return re.sub(r"[^\w.-]", "-", text).strip("-")


def check_run(run: str) -> None:
    """Raise ValueError for the id of a run or sweep that is no file name."""
    if not re.fullmatch(r"[\w.-]+", run):
        raise ValueError(f"run: {run!r} must be letters, digits, '.', '_' and '-'")
