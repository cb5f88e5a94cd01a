"""The messages of docs/troubleshooting.md are those of the code, word by word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE)


def texts(file: Path) -> Iterator[str]:
    """Every text of a file, with an ellipsis where a value goes in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def said() -> str:
    return "\n".join(
        text for room in ("flows", "tasks") for file in (ROOT / room).rglob("*.py") for text in texts(file)
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_really_given(message: str, said: str):
    assert message in said


def test_the_page_has_messages():
    assert len(MESSAGES) > 25
