"""What Prefect's interface shows of a run: the results table, the figures, and where the whole report is."""

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.record import home
from tasks.record.metrics import query
from tasks.record.report import markdown_table


def show_run(run: str) -> None:
    """Publish the artifacts of a recorded run; everything is read back from the stored rows."""
    create_markdown_artifact(
        markdown_table(run), key="results", description="dense beside pruned, from the stored rows"
    )
    stages = query("select stage, round(seconds, 2) as seconds, cached from stages where run = ?", [run])
    create_table_artifact(stages, key="stages", description="what was computed and what was found in the cache")
    page = home.root() / "reports" / run / "index.html"
    create_link_artifact(page.as_uri(), key="report", link_text=f"the whole report: {page}")
