"""What the stored rows say of an artifact: which run made it, and of what."""

from dataclasses import dataclass

from tasks.record.metrics import query_named


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The latest run that has stored an artifact. `model`, `model_hash`: what it began with; `parameters`: its own."""

    run: str
    model: str
    model_hash: str
    method: str
    pattern: str
    seed: int
    parameters: str


def origin_of(content: str) -> Origin | None:
    """Of the artifact with this hash; None where no row speaks of it."""
    found = query_named("origins", content=content)
    return Origin(**found[0]) if found else None
