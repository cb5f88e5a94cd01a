"""What a page says of profiles: the results of each, what it leaves and holds, how long a switch to it takes."""

import dataclasses

import pytest

from tasks.evaluate.profile_row import ProfileRow
from tasks.record import metrics
from tasks.record.pages.report import drawings, write_report
from tasks.record.pages.results import markdown_table, results_of
from tasks.record.registry.tracking import metrics_of
from tasks.record.runs.listing import runs_table
from tests.record.plausible import evaluation, forecast, speed
from tests.record.plausible_profiles import DEPTH, HEADS, METHODS, NONE, RUN, record_profiles
from tests.record.reading import text_of


@pytest.fixture(autouse=True)
def recorded(artifacts):
    """A run of two profiles, each evaluated and timed beside the model that they are of."""
    record_profiles()


def test_a_row_is_written_for_every_profile_and_read_again():
    stored = metrics.query("select * from profiles order by profile")
    names = [field.name for field in dataclasses.fields(ProfileRow)]
    read = [ProfileRow(**{name: row[name] for name in names}) for row in stored]
    assert read == [DEPTH, HEADS, NONE]
    with pytest.raises(ValueError, match="profiles: two rows with the same profile"):
        metrics.record(RUN, "profiles", [HEADS, HEADS])


def test_the_results_name_every_profile_and_no_file_as_there_is_none_of_it():
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_table("p1").splitlines()]
    assert "Size" not in head
    assert [row[:3] for row in rows] == [
        ["dense", "–", "6.050"],
        ["depth influence", "depth20", "9.125"],
        ["heads taylor+repair", "heads20", "7.250"],
    ]


def test_the_page_says_what_each_leaves_holds_and_takes_to_switch_to():
    page = text_of(write_report("p1").read_text())
    assert "none 6 24 1,920 3,148,000 0 B 12.6 MB 0.0123 ms 1.27 ms" in page
    assert "heads20 6 19 2,304 2,600,000 0.83× 1.2 MB 9.2 MB 0.0312 ms 1.27 ms" in page
    assert "The model takes 12.6 MB of memory, its profiles 1.2 MB beside it" in page
    assert "as models of their own, it among them, 32.1 MB" in page  # 12.592 + 1.25 + 9.15 + 9.15
    assert "600 from any to any other were timed" in page


def test_the_figures_have_a_line_for_each_profile():
    drawn = drawings("p1", results_of("p1"))
    assert list(drawn) == ["frontier0", "speeds"]
    frontier, speeds = (svg for svg, _ in drawn.values())
    assert all(name in frontier for name in METHODS.values())
    assert all(name in text_of(speeds) for name in METHODS)


def test_the_list_of_runs_has_one_line_for_all_and_shows_the_smallest():
    [line] = [line for line in runs_table().splitlines() if "p1" in line]
    assert "7.250" in line
    assert "0.83×" in line


def test_metrics_are_named_after_their_profile():
    named = metrics_of([evaluation(), evaluation("heads20", ppl=7.25)], [speed("heads20", "decode", 1.2, 1.1, 1.3, "")])
    assert named["ppl"] == evaluation().ppl
    assert named["heads20_ppl"] == 7.25
    assert named["heads20_decode_speed_ratio"] == 1.2
    assert "decode_speed_ratio" not in named


def test_a_page_holds_the_forecast_of_each_profile_against_what_was_measured():
    for subject, ratio in (("depth20", 1.2), ("heads20", 1.1)):
        own = dataclasses.replace(RUN, method=METHODS[subject], pattern=subject)
        held = dataclasses.replace(forecast("decode", ratio, 1.0), subject=subject)
        metrics.record(own, "forecasts", [held])
    page = text_of(write_report("p1").read_text())
    assert "depth influence depth20 decode 33.3 ms 1.20× 1.00× +20.0 %" in page
    assert "heads taylor+repair heads20 decode 36.4 ms 1.10× 1.00× +10.0 %" in page
