"""The points of the sweeps `activation` and `activation-tables`: by pattern, selection, mitigation and module."""

from collections.abc import Iterable
from typing import Any

from flows.activation_choices import Activation, activation_of

GROUPS = ("2:4", "4:8", "8:16", "16:32")
SHARES = tuple(f"{percent}%" for percent in range(20, 100, 10))
STATIC = ("none", "var", "dpts")
LEARNED = ("spts", "lpts", "ls", "rsparse")
SCORES = ("clact", "amber", "weight_variance")
MODULES = ("gate_proj,up_proj,down_proj", "q_proj,k_proj,v_proj,o_proj")


def activation_points(**shared: Any) -> tuple[Activation, ...]:
    """Every pattern with what needs no training; then at 50 % the other selections, what learns, and module sets."""
    points = [
        *_points(("nm",), GROUPS, STATIC, **shared),
        *_points(("topk",), SHARES, STATIC, **shared),
        *_points(("threshold", *SCORES), ("50%",), ("none",), **shared),
        *_points(("topk",), ("50%",), ("scaling", "var+dpts"), **shared),
        *_points(("threshold",), ("50%",), ("none",), greedy=0.05, **shared),
        *_points(("topk", "threshold"), ("50%",), LEARNED, **shared),
    ]
    for modules in MODULES:
        points += _points(("topk",), ("50%",), STATIC, modules=modules, **shared)
        points += _points(("nm",), ("8:16",), STATIC, modules=modules, **shared)
    return tuple(points)


def table_points(modules: str, **shared: Any) -> list[Activation]:
    """Every pattern with everything that makes up for what is not read, of these linears."""
    ways = (*STATIC, *LEARNED)
    return _points(("nm",), GROUPS, ways, modules=modules, **shared) + _points(
        ("topk",), SHARES, ways, modules=modules, **shared
    )


def _points(
    selections: Iterable[str], patterns: Iterable[str], mitigations: Iterable[str], **shared: Any
) -> list[Activation]:
    said: dict[str, Any] = {"modules": "*", "allocation": "uniform", "learn": None} | shared
    return [
        activation_of({"selection": selection, "pattern": pattern, "mitigation": mitigation} | said)
        for pattern in patterns
        for selection in selections
        for mitigation in mitigations
    ]
