"""What a page says of a run-time controller: policies side by side, actions, figures; and what MLflow has of it."""

import dataclasses
import math
import re

import numpy as np
import pytest

from tasks.record import metrics
from tasks.record.metrics import query_named
from tasks.record.pages.controller_figures import _frontier, _trend
from tasks.record.pages.controllers import controllers, policies_summary
from tasks.record.pages.report import write_report
from tasks.record.pages.results import markdown_table
from tasks.record.registry.learned_policies import Learned
from tasks.record.registry.tracking import log_run
from tasks.record.runs.listing import runs_table
from tests.record.plausible import record_run
from tests.record.plausible_controllers import (
    ACTIONS,
    FLOORS,
    LEARNERS,
    RUN,
    SEEDS,
    TOKENS,
    controller,
    looks,
    prompts,
    record_controllers,
)
from tests.record.reading import cells, text_of


@pytest.fixture(autouse=True)
def recorded(artifacts):
    record_controllers()


def test_the_rows_of_every_table_are_read_again_as_they_were():
    read = metrics.query(
        "select * from learning where learner = 'dqn' and floor = 0.05 and learner_seed = 1 order by step"
    )
    assert [row["step"] for row in read] == [0, 100, 200, 300, 400]
    for row, look in zip(read, looks("dqn", 0.05, 1), strict=True):
        assert dataclasses.asdict(look).items() <= row.items()
    [count] = metrics.query("select count(*) as rows from decisions")
    assert count["rows"] == 8 * (len(FLOORS) * (4 + 3 * SEEDS) + 1)
    with pytest.raises(ValueError, match="controllers: two rows with the same policy, floor, live"):
        metrics.record(RUN, "controllers", [controller("dqn", 0.05, 0.1)] * 2)


def test_the_terminal_has_the_policies_by_floor_and_the_oracle_first():
    head, _, *rows = cells(markdown_table("k1"))
    assert head[:4] == ["Floor", "Policy", "Speed", "Over best fixed"]
    of_the_first = [row[1] for row in rows if row[0] == "2.0 %"]
    assert of_the_first == ["oracle", "bandit", "dqn", "dqn, no prompt features", "best fixed", "random", "dense"]
    assert ["5.0 %", "bandit, live", "1.15× [1.12, 1.17]"] in [row[:3] for row in rows]
    assert "**+0.045** [+0.025, +0.065]" in markdown_table("k1")  # the interval leaves 0 out
    assert " +0.020 [+0.000, +0.040]" in markdown_table("k1")  # that of dqn begins at 0


def test_the_page_says_what_was_compared_and_what_each_action_did():
    page = write_report("k1").read_text()
    said = text_of(page)
    assert "dqn+bandit floor 2%, 5% on stories" in said
    assert "At a floor of 5 % bandit answers at 1.15× the speed of the whole model live, surely faster" in said
    assert "The best fixed action, chosen on the training prompts, is ffn20" in said
    assert f"Every action on all {len(prompts())} prompts" in said
    [row] = metrics.query("select avg((rise > 0.05)::int) as broken from episodes where action = 'ffn20'")
    assert f"{100 * row['broken']:.1f} %" in said
    assert all(f"<summary>{source}</summary>" in page for source in ("dolly", "gsm8k"))
    assert "nan" not in re.sub(r"<[^>]*>", "", page).lower().split()


def test_every_figure_of_the_list_is_drawn_once():
    section = controllers("k1")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", section)
    assert len(captions) == len(set(captions)) == 12
    for said in ("tokens per second", "time of each", "perplexity of the reference", "Length", "where the time"):
        assert sum(said in caption for caption in captions) == 1
    for said in ("while it is learned", "drawn at random", "added up", "quality against speed", "Memory", "by source"):
        assert sum(said in caption for caption in captions) >= 1
    assert write_report("k1").read_bytes() == write_report("k1").read_bytes()


def test_a_run_without_a_controller_says_nothing_of_one():
    record_run()
    assert controllers("r1") == policies_summary("r1") == ""


def test_the_shown_policy_is_the_one_that_answered_live_or_else_the_one_of_least_regret():
    shown = {(row["floor"], row["policy"], row["learner_seed"]) for row in query_named("chosen", run="k1")}
    assert shown == {(0.02, "bandit", 0), (0.05, "bandit", 1)}
    rows = [row for row in query_named("chosen", run="k1") if row["floor"] == 0.05]
    assert len(rows) == 8
    assert {row["action"] for row in rows} == {"ffn20"}
    assert all(row["dense_nll"] == 3.0 for row in rows)
    assert all(row["tokens_per_s"] == pytest.approx(1000 * TOKENS / (12 + TOKENS * 2 / 1.1)) for row in rows)


def test_what_is_gained_is_measured_from_dense():
    rows = query_named("rewards", run="k1")
    assert {row["policy"] for row in rows} == {"oracle", "best fixed", "random", *LEARNERS}
    fixed = [row["reward"] for row in rows if row["policy"] == "best fixed" and row["floor"] == 0.05]
    [rises] = metrics.query(
        "select list(rise order by prompts.prompt) as rise from episodes join prompts using (prompt) "
        "where action = 'ffn20' and split = 'test'"
    )
    assert sorted(fixed) == pytest.approx(sorted(0.1 - 3 * max(0, rise - 0.05) for rise in rises["rise"]))


def test_the_line_of_the_frontier_joins_what_nothing_beats():
    points = [(1.0, 0.0), (1.2, 0.05), (1.1, 0.06), (1.3, 0.5), (1.3, 0.2), (0.9, 0.0)]
    assert _frontier(points) == [(1.0, 0.0), (1.2, 0.05), (1.3, 0.2)]


def test_a_trend_goes_through_what_lies_on_a_line():
    places = np.arange(5)
    assert _trend(places, 3 + 2.0 * places, log=False) == pytest.approx(3 + 2.0 * places)
    assert _trend(places, np.exp(1 + places / 2), log=True) == pytest.approx(np.exp(1 + places / 2))
    assert _trend(places[:1], np.array([4.0]), log=True) == [4.0]


def test_the_list_of_runs_has_a_line_without_a_perplexity():
    [line] = [line for line in runs_table().splitlines() if "k1" in line]
    assert "dqn+bandit" in line


def test_mlflow_has_what_policies_are_worth_their_curves_and_themselves(tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "policy.json").write_text("{}")
    rows = [controller("dqn", 0.05, 0.1, regret=math.nan), controller("dqn, no prompt features", 0.05, 0.2, live=True)]
    learned = Learned(rows=rows, looks=looks("dqn", 0.05, 1), folders={"floor_0.05": folder})
    assert learned.metrics()["dqn_floor_0.05_gain"] == 0.1
    assert learned.metrics()["dqn--no-prompt-features_floor_0.05_live_gain"] == 0.2
    assert "dqn_floor_0.05_regret" not in learned.metrics()
    with log_run(RUN, parameters={}, evaluations=[], learned=learned) as (client, run_id):
        history = client.get_metric_history(run_id, "dqn_floor_0.05_seed_1_reward")
        assert [point.step for point in history] == [0, 100, 200, 300, 400]
        assert [file.path for file in client.list_artifacts(run_id, "policies/floor_0.05")] == [
            "policies/floor_0.05/policy.json"
        ]


def test_actions_are_listed_in_their_order_with_what_they_do():
    rows = query_named("actions", run="k1")
    assert [row["action"] for row in rows if row["source"] is None] == [*ACTIONS]
    assert [row["source"] for row in rows[len(ACTIONS) :: len(ACTIONS)]] == ["dolly", "gsm8k"]
    assert all(row["ratio"] == pytest.approx(ACTIONS[row["action"]][0]) for row in rows)
