"""The page of what the pipeline costs is made from the lines alone."""

from bench.overhead import markdown

START = {"date": "2026-01-02T03:04:05+00:00", "machine": "A CPU"}
STAGES = START | {"stages": 100, "server_s": 4.0, "computed_s": 0.02, "found_s": 0.0125}
COMMAND = START | {"command": "espalier sweep", "cold_s": 200.0, "computed_stages": 50, "computed_s": 190.0}


def test_the_share_is_what_no_stage_worked():
    page = markdown([STAGES, COMMAND | {"beside_s": 200.0 - 190.0 + 50 * 0.02, "warm_s": 14.0}])
    assert f"| {START['date']} | 100 | 20 ms | 12 ms | 4.0 s |" in page
    assert "| `espalier sweep` | 200.0 s | 11.0 s | 5.5 % | 14.0 s |" in page
