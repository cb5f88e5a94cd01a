"""The parameters of a run, one level deep: `pruner.damp` of {"pruner": {"damp": 0.01}}, as pages compare them."""

import json
from collections.abc import Mapping
from typing import Any

from tasks.secret import without_secrets


def flat(parameters: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Dotted name -> value; a mapping becomes its members, an empty one and a list stay values."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        place = f"{within}.{name}" if within else str(name)
        found |= flat(value, place) if isinstance(value, Mapping) and value else {place: value}
    return found


def text_of(value: Any) -> str:
    """A string as it is, any other value as JSON, such as null and [0.4, 0.6]; neither with a secret."""
    return without_secrets(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))
