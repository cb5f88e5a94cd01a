"""Whether a text is long enough for the windows that a run reads of it."""

from tasks.data.sources import is_longer, parse_source

CHARACTERS = 8  # a token, and more than it has in ordinary text


def may_be_short(source: str, window: int, samples: int | None = None) -> bool:
    """Whether a source is a file with so few characters that only its tokens tell. Errors as `read` raises them."""
    return parse_source(source).is_file and not is_longer(source, CHARACTERS * window * (samples or 1))


def check_enough(source: str, role: str, tokens: int, window: int, samples: int | None = None) -> None:
    """ValueError where a text of `tokens` has not `samples` windows; None: not one, which is what a score needs."""
    needed = window * (samples or 1)
    if tokens >= needed:
        return
    windows, fewer = f"one window of {window}", ""
    if samples is not None and samples > 1:
        windows, fewer = f"{samples} windows of {window}", ", fewer --samples"
    raise ValueError(
        f"{role}: {source} has {tokens} tokens, {needed} are needed for {windows}; "
        f"give more text{fewer} or a shorter --window"
    )
