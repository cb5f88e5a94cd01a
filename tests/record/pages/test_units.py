"""Numbers as a reader sees them."""

from tasks.record.pages import units


def test_numbers_read_well():
    assert [units.digits(value) for value in (5.9034, 29.25, 113, 2660.4, 0.0123, 0)] == [
        "5.903",
        "29.25",
        "113.0",
        "2,660",
        "0.01230",
        "0",
    ]
    assert [units.digits(value) for value in (None, float("inf"), float("nan"))] == ["–", "∞", "not a number"]
    assert [units.size(value) for value in (12, 4096, 7_000_000, 2.5e9)] == ["12 B", "4.1 kB", "7.0 MB", "2.5 GB"]
    assert [units.seconds(value) for value in (0.0421, 12.5, 200)] == ["0.042 s", "12.5 s", "3 min 20 s"]
    assert units.percent(0.4999) == "50.0 %"
