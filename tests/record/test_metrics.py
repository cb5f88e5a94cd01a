"""The tables: rows come back as they went in, typed, whoever writes beside them and whatever columns come later."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.handles import StageRow
from tasks.record import metrics
from tests.record.plausible import CONTEXT, evaluation, finish, record_run
from tests.record.plausible_benchmarks import RUN as BENCHMARKS
from tests.record.plausible_benchmarks import record_benchmarks
from tests.record.plausible_controllers import RUN as CONTROLLER
from tests.record.plausible_controllers import record_controllers
from tests.record.plausible_cuts import CUT, record_cut
from tests.record.plausible_inputs import RUN as SPARSE
from tests.record.plausible_inputs import record_inputs
from tests.record.plausible_profiles import RUN, record_profiles
from tests.record.plausible_searches import SEARCH, record_search


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "it's [mine]"))
    return tmp_path / "it's [mine]"


def test_rows_come_back_typed_with_their_context():
    rows = [evaluation("dense"), evaluation("pruned", ppl=float("inf"))]
    metrics.record(CONTEXT, "evaluations", rows)
    finish()
    found = metrics.query("SELECT * FROM evaluations ORDER BY subject")
    assert found == [dataclasses.asdict(CONTEXT) | dataclasses.asdict(row) for row in rows]
    assert metrics.query("SELECT ppl FROM evaluations WHERE subject = ?", ["dense"]) == [{"ppl": rows[0].ppl}]


def test_empty_tables_have_their_columns():
    for table, row_type in metrics.TABLES.items():
        assert metrics.query(f"SELECT * FROM {table}") == []
        columns = [row["column_name"] for row in metrics.query(f"DESCRIBE {table}")]
        assert columns == [field.name for kind in (type(CONTEXT), row_type) for field in dataclasses.fields(kind)]
        assert set(metrics.GRAIN[table]) <= set(columns)


def test_rows_recorded_again_replace_their_own_and_nobody_elses():
    record_run()
    record_cut()
    record_profiles()
    record_inputs()
    record_search()
    record_controllers()
    record_benchmarks()
    before = {table: metrics.query(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in metrics.TABLES}
    record_run()
    record_cut()
    record_profiles()
    record_inputs()
    record_search()
    record_controllers()
    record_benchmarks()
    record_run(dataclasses.replace(CONTEXT, run="r2"))
    record_cut(dataclasses.replace(CUT, run="c2"))
    record_profiles(dataclasses.replace(RUN, run="p2"))
    record_inputs(dataclasses.replace(SPARSE, run="a2"))
    record_search(dataclasses.replace(SEARCH, run="f2"))
    record_controllers(dataclasses.replace(CONTROLLER, run="k2"))
    record_benchmarks(dataclasses.replace(BENCHMARKS, run="b2"))
    metrics.record(CONTEXT, "stages", [StageRow(stage="publish", seconds=1.0, cached=False)])
    after = {table: metrics.query(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in metrics.TABLES}
    assert all(before.values())
    assert after == {table: 2 * n + (table == "stages") for table, n in before.items()}


def test_the_rows_of_a_run_that_did_not_finish_are_not_seen():
    metrics.record(CONTEXT, "evaluations", [evaluation("dense"), evaluation()])
    assert metrics.query("SELECT * FROM evaluations") == metrics.ask("FROM evaluations") == []
    record_run(dataclasses.replace(CONTEXT, run="r2"))
    assert metrics.query("SELECT DISTINCT run FROM evaluations") == [{"run": "r2"}]
    finish()
    assert metrics.ask("SELECT DISTINCT run FROM evaluations ORDER BY run") == [{"run": "r1"}, {"run": "r2"}]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine AS FROM runs",
        "DROP TABLE evaluations",
        "DELETE FROM runs",
        "CREATE OR REPLACE TABLE runs AS SELECT 1 AS run",
        "COPY (FROM runs) TO '{folder}/out.csv'",
        "COPY (FROM runs) TO '{folder}/metrics/runs/out.parquet'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/espalier.duckdb' AS kept; DROP VIEW kept.runs",
        "SET enable_external_access = true",
        "FROM read_text('{folder}/secret')",
    ],
)
def test_a_users_statement_leaves_nothing_behind(statement, artifacts):
    record_run()
    (artifacts / "secret").write_text("s")
    before = metrics.query_named("results", run="r1")
    files = {path: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()}
    in_memory = statement.startswith(("CREATE", "DROP", "DELETE"))  # these reach the copy
    refused = nullcontext() if in_memory else pytest.raises(ValueError, match=r"^statement: .+$")
    with refused:
        metrics.ask(statement.format(folder=str(artifacts).replace("'", "''")))
    assert {path: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()} == files
    assert metrics.query_named("results", run="r1") == before


def test_a_question_has_its_answer_or_one_line(artifacts, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"artifacts: there is no folder .*; set ESPALIER_ARTIFACTS"):
        metrics.ask("FROM runs")
    assert not artifacts.exists()
    record_run()
    assert metrics.ask("SELECT ppl FROM evaluations ORDER BY ppl") == [{"ppl": 6.05}, {"ppl": 20.0855}]
    for wrong in ("selct 1", "FROM losses", "", "-- nothing"):
        with pytest.raises(ValueError, match=r"^statement: .+$"):
            metrics.ask(wrong)
    (tmp_path / "file").write_text("in the way")
    for place in ("file", "file/below"):
        monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / place))
        with pytest.raises(ValueError, match=r"artifacts: cannot write to .*; set ESPALIER_ARTIFACTS") as caught:
            metrics.query("FROM runs")
        assert "\n" not in str(caught.value)


def test_wrong_rows_are_refused(artifacts):
    with pytest.raises(ValueError, match="table: 'losses' must be one of runs, stages"):
        metrics.record(CONTEXT, "losses", [])
    with pytest.raises(TypeError, match="stages takes StageRow, not EvaluationRow"):
        metrics.record(CONTEXT, "stages", [evaluation()])
    with pytest.raises(ValueError, match="two rows with the same subject, source, window"):
        metrics.record(CONTEXT, "evaluations", [evaluation(), evaluation()])
    with pytest.raises(ValueError, match=r"run: '\.\./r' must be"):
        metrics.record(dataclasses.replace(CONTEXT, run="../r"), "stages", [])
    with pytest.raises(ValueError, match="declared non-nullable"):
        metrics.record(CONTEXT, "evaluations", [evaluation(ppl=None)])
    assert not (artifacts / "metrics").exists()


def test_a_column_that_came_later_is_null_in_older_files(artifacts):
    record_controllers(dataclasses.replace(CONTROLLER, run="k2"))
    record_benchmarks(dataclasses.replace(BENCHMARKS, run="b2"))
    metrics.record(CONTEXT, "stages", [StageRow(stage="prune", seconds=1.0, cached=False)])
    finish()
    [file] = (artifacts / "metrics" / "stages").iterdir()
    old = pq.read_table(file).drop_columns(["cached"]).append_column("retired", pa.array([7]))
    pq.write_table(old, file.with_name("older.parquet"))
    rows = metrics.query("SELECT cached, retired FROM stages ORDER BY retired NULLS FIRST")
    assert rows == [{"cached": False, "retired": None}, {"cached": None, "retired": 7}]


def _write_many(writer: int) -> None:
    for part in range(5):
        context = dataclasses.replace(CONTEXT, run=f"w{writer}", seed=writer)
        metrics.record(context, "stages", [StageRow(stage=f"s{part}", seconds=float(writer), cached=False)])
        finish(context)
        metrics.query("SELECT count(*) FROM stages")


def test_processes_that_write_and_read_at_once_lose_and_mix_nothing():
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(_write_many, range(6)))
    rows = metrics.query("SELECT run, seed, seconds, count(DISTINCT stage) AS n FROM stages GROUP BY ALL ORDER BY run")
    assert rows == [{"run": f"w{w}", "seed": w, "seconds": float(w), "n": 5} for w in range(6)]


def test_another_process_may_hold_the_database(artifacts):
    metrics.keep_views()
    record_run()
    metrics.keep_views()
    hold = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(artifacts / "espalier.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        metrics.keep_views()
        assert len(metrics.query("SELECT * FROM evaluations")) == 2
        holder.communicate()
    with duckdb.connect(artifacts / "espalier.duckdb", read_only=True) as database:  # as any DuckDB client would
        assert database.execute("SELECT count(*) FROM evaluations").fetchone() == (2,)


def test_an_unknown_query_is_named():
    with pytest.raises(ValueError, match="query: 'nothing' must be one of"):
        metrics.query_named("nothing")


def test_every_query_runs_on_empty_and_on_full_tables():
    for full in (False, True):
        if full:
            record_run()
        assert len(metrics.query_named("runs")) == int(full)
        for name in ("scope", "results", "stages", "datasets", "blocks", "linears", "speeds"):
            assert bool(metrics.query_named(name, run="r1")) == full, name
            assert metrics.query_named(name, run="r2") == []


def test_stages_keep_the_order_in_which_they_were_recorded():
    record_run()
    for run in range(2, 40):  # more runs than stages of the one that is asked for
        finish(dataclasses.replace(CONTEXT, run=f"r{run}"))
    assert [row["stage"] for row in metrics.query_named("stages", run="r1")] == ["tokenize", "prune", "evaluate"]


def test_every_row_type_states_its_grain():
    for row_type in metrics.TABLES.values():
        assert row_type.__doc__
        assert "one row per" in row_type.__doc__
