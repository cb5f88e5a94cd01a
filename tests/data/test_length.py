"""A text that is too short is told with what was meant, what it has and what it needs."""

import pytest

from tasks.data.length import CHARACTERS, check_enough, may_be_short


def test_only_a_file_with_few_characters_is_doubtful(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "12345678"}\n' * 12 + '{"text": "x"}\n')
    assert CHARACTERS == 8
    assert may_be_short(f"{path}[:12]", window=4, samples=3)
    assert not may_be_short(str(path), window=4, samples=3)
    assert may_be_short(str(path), window=13)
    assert not may_be_short("docs", window=10**9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"window": 8},
            "role: a.txt has 7 tokens, 8 are needed for one window of 8; give more text or a shorter --window",
        ),
        (
            {"window": 4, "samples": 2},
            "role: a.txt has 7 tokens, 8 are needed for 2 windows of 4; give more text, fewer --samples or a shorter "
            "--window",
        ),
    ],
)
def test_what_is_missing_is_said(given, said):
    with pytest.raises(ValueError, match="tokens") as error:
        check_enough("a.txt", "role", 7, **given)
    assert str(error.value) == said
    check_enough("a.txt", "role", 8, **given)
