"""What Prefect's interface shows of a run: the results table, the figures, and where the whole report is."""

from base64 import b64encode

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.record import home
from tasks.record.drawing import standalone
from tasks.record.metrics import query
from tasks.record.report import drawings, markdown_table
from tasks.record.results import results_of
from tasks.record.task import uncached


@uncached("show")
def show_run(run: str) -> None:
    """Publish the artifacts of a recorded run or sweep; everything is read back from the stored rows."""
    create_markdown_artifact(markdown_table(run), key="results", description="dense beside pruned, as stored")
    stages = query("select stage, round(seconds, 2) as seconds, cached from stages where run = ?", [run])
    if stages:
        create_table_artifact(stages, key="stages", description="what was computed and what was found in the cache")
    for name, (svg, caption) in drawings(run, results_of(run)).items():
        image = b64encode(standalone(svg).encode()).decode()
        create_image_artifact(f"data:image/svg+xml;base64,{image}", key=name, description=caption)
    page = home.root() / "reports" / run / "index.html"
    create_link_artifact(page.as_uri(), key="report", link_text=f"the whole report: {page}")
