"""What Prefect's interface shows of a run: the results table, the figures, and where the whole report is."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.prune.structure.rows import CutStageRow
from tasks.record.metrics import query
from tasks.record.pages.drawing import standalone
from tasks.record.pages.results import markdown_table
from tasks.record.task import uncached

FIGURE = re.compile(r"<figure>(<svg.*?</svg>)\s*<figcaption>(.*?)</figcaption>", re.DOTALL)


@uncached("show cut stages")
def show_cut_stages(rows: Sequence[CutStageRow]) -> None:
    """Publish the stages of cutting and training that are done: a table under the name of the last of them."""
    table = [asdict(row) for row in rows]
    create_table_artifact(table, key=f"stage-{rows[-1].stage}", description="parameters, losses, tokens and time")


@uncached("show")
def show_run(run: str, report: str) -> None:
    """Publish the artifacts of a recorded run or sweep, from the stored rows and the figures of its page."""
    create_markdown_artifact(markdown_table(run), key="results", description="dense beside pruned, as stored")
    stages = query("select stage, round(seconds, 2) as seconds, cached from stages where run = ?", [run])
    if stages:
        create_table_artifact(stages, key="stages", description="what was computed and what was found in the cache")
    page = Path(report)
    for number, (svg, caption) in enumerate(FIGURE.findall(page.read_text(encoding="utf-8"))):
        image = b64encode(standalone(svg).encode()).decode()
        create_image_artifact(f"data:image/svg+xml;base64,{image}", key=f"figure-{number}", description=caption)
    create_link_artifact(page.as_uri(), key="report", link_text=f"the whole report: {page}")
