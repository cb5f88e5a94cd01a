"""What is written nowhere, neither rows nor logs nor reports: tokens of this process, and passwords in addresses.

It stands beside the rooms: whoever puts a stranger's words into an error, a row or a page asks it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

HIDDEN = "***"
SHORTEST = 8  # characters of a secret: a shorter value may be a word that stands there for another reason
SECRET_NAME = re.compile(r"TOKEN$|SECRET|PASSWORD|PASSWD|ACCESS_KEY|API_KEY", re.IGNORECASE)
PASSWORD = re.compile(r"(?<=://)[^\s/@]+:[^\s/@]*(?=@)")
TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,})\b")


def without_secrets(text: str) -> str:
    """The text with `***` for each token or password in it: those of the environment, and what has the form of one."""
    return _hide(text, _values())


def rows_without_secrets(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The columns of each row, their texts without secrets; a text that many rows share is looked at once."""
    values = _values()
    hide = cache(lambda text: _hide(text, values))
    return [{name: hide(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]


def _values() -> list[str]:
    """The secrets of the environment as it is now."""
    return [value for name, value in os.environ.items() if len(value) >= SHORTEST and SECRET_NAME.search(name)]


def _hide(text: str, values: Iterable[str]) -> str:
    for value in values:
        text = text.replace(value, HIDDEN)
    return TOKEN.sub(HIDDEN, PASSWORD.sub(HIDDEN, text))
