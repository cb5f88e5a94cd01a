"""The report: one page that needs nothing else, written from stored rows alone and so at any time, to the same bytes.

`run` names a run, or a sweep: then the page compares the runs of the sweep.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template

from tasks.record import home
from tasks.record.metrics import query_named
from tasks.record.pages import figures, units
from tasks.record.pages.benchmarks import benchmarks
from tasks.record.pages.controllers import controllers, policies_summary
from tasks.record.pages.cut_stages import cut_stages
from tasks.record.pages.cuts import cut_blocks, forecasts, importances, recoveries, repairs, splits
from tasks.record.pages.details import datasets, linears, stages
from tasks.record.pages.drawing import framed
from tasks.record.pages.inputs import learned, products, sparse_inputs
from tasks.record.pages.lowest import comparison_told, lowest_tile, pruned_and_best
from tasks.record.pages.profiles import profiles
from tasks.record.pages.results import (
    is_cut,
    is_profile,
    is_sparse_input,
    ranks_of,
    result_columns,
    results_of,
    summary,
)
from tasks.record.pages.searches import searches
from tasks.record.pages.tables import Row, section, to_html
from tasks.record.pages.titles import title
from tasks.record.provenance import machine_in_words, versions_in_words

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<main>
$content
</main>
</body>
</html>
""")


def write_report(run: str) -> Path:
    """Write reports/<run>/index.html and return its path. Raises ValueError if `run` is not recorded."""
    results = results_of(run)
    runs = query_named("scope", run=run)
    named = title(run, runs)
    sections = [
        _header(run, named, runs, results),
        _results(results),
        _figures(run, results),
        benchmarks(run),
        controllers(run),
        profiles(run),
        sparse_inputs(run),
        learned(run),
        products(run),
        forecasts(run),
        searches(run),
        cut_stages(run),
        cut_blocks(run),
        splits(run),
        repairs(run),
        importances(run),
        recoveries(run),
        stages(run, runs),
        datasets(run),
        linears(run),
        _provenance(runs),
    ]
    style = resources.files("tasks.record.pages").joinpath("page.css").read_text(encoding="utf-8")
    page = PAGE.substitute(title=escape(named), style=style, content="\n".join(filter(None, sections)))
    path = home.root() / "reports" / run / "index.html"
    home.write_file(path, page.encode())
    return path


def _header(run: str, named: str, runs: Sequence[Row], results: Sequence[Row]) -> str:
    kind = "sweep" if runs[0]["run"] != run else runs[0]["flow"]
    when = max(row["recorded_at"] for row in runs).replace("T", " ").replace("+00:00", " UTC")
    said = summary(results) or policies_summary(run)
    return (
        f'<header><p class="kicker">Espalier · {escape(kind)} {escape(run)} · {escape(when)}</p>'
        f'<h1>{escape(named)}</h1><p class="summary">{escape(said)}</p>{_tiles(results)}</header>'
    )


def _tiles(results: Sequence[Row]) -> str:
    """The few numbers that matter: of one run all that it cost; of a sweep the lowest perplexities."""
    pruned, best = pruned_and_best(results)
    tiles: list[tuple[str, str, str]] = []
    if len(pruned) == 1:
        [row] = pruned
        dense = row["dense"]
        tiles = [
            ("Perplexity", units.digits(row["ppl"]), f"dense {units.digits(dense['ppl'])}"),
            ("Bits per byte", units.digits(row["bits_per_byte"]), f"dense {units.digits(dense['bits_per_byte'])}"),
            _gone_tile(row),
        ]
        if not is_sparse_input(row):
            size, whole = (units.size(each["size_bytes"]) for each in (row, dense))
            tiles.append(("Size on disk", size, f"dense {whole}"))
        tiles += [
            (f"{phase.capitalize()} speed", units.ratio(row[f"{phase}_ratio"]), row[f"{phase}_verdict"])
            for phase in ("prefill", "decode")
            if row[f"{phase}_ratio"] is not None
        ]
    elif pruned:
        tiles = [("Perplexity, dense", units.digits(pruned[0]["dense"]["ppl"]), pruned[0]["model"])]
        tiles += [lowest_tile(row, results) for row in best]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def _gone_tile(row: Row) -> tuple[str, str, str]:
    if is_cut(row):
        return "Parameters", units.short(row["parameters"]), f"dense {units.short(row['dense']['parameters'])}"
    if is_sparse_input(row):
        return "Weights not read", units.percent(row["sparsity"]), f"counted, pattern {row['pattern']}"
    return "Zeros, counted", units.percent(row["sparsity"]), f"{ranks_of(row)} pattern {row['pattern']}".strip()


def _results(results: Sequence[Row]) -> str:
    """One table for each dense model and text."""
    tables = []
    for (model, source, window), rows in groupby(results, key=lambda row: (row["model"], row["source"], row["window"])):
        group = list(rows)
        tokens, windows = (units.count(group[0][name]) for name in ("tokens", "windows"))
        caption = (
            f"{model} on {source}: {tokens} tokens scored in {windows} windows of {window}. {_gone_caption(group)} "
            f"{_speed_caption(group)} {comparison_told(group)}"
        ).strip()
        tables.append(to_html(result_columns(group), group, "Results", caption, mark=_mark))
    return section("Results", *tables) if tables else ""


def _gone_caption(results: Sequence[Row]) -> str:
    """How the columns count that say what is gone."""
    if any(map(is_profile, results)):
        return "A profile is named after what goes, and the share of it in percent; parameters are those in force."
    if all(is_cut(row) for row in results if row["subject"] != "dense"):
        return "Parameters are counted in the models as they were loaded again; the pattern is a share of the blocks'."
    if any(sparse := [is_sparse_input(row) for row in results if row["subject"] != "dense"]):
        zeros = "" if all(sparse) else "; where weights were pruned, their zeros"
        return f"Not read is the share of the blocks' weights that a token does not need, counted on this text{zeros}."
    factors = "; of a weight with factors, in the sparse part beside them" if any(map(ranks_of, results)) else ""
    return f"Zeros are counted in all linears of the blocks{factors}."


def _speed_caption(results: Sequence[Row]) -> str:
    if all(row["prefill_ratio"] is None and row["decode_ratio"] is None for row in results):
        return "Speed not measured."
    return (
        "Speeds are relative to the dense model timed beside them, with a 95\u00a0% interval; where it covers 1: "
        f"{_smaller(results)}no faster on this machine."
    )


def _smaller(results: Sequence[Row]) -> str:
    return "" if all(is_sparse_input(row) for row in results if row["subject"] != "dense") else "a smaller file, "


def _mark(row: Row) -> str:
    return "dense" if row["subject"] == "dense" else "best" if row["best"] else ""


def drawings(run: str, results: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """name -> (SVG, caption), where there are rows; perplexities of one text and model to a figure."""
    drawn = {}
    texts = groupby(results, key=lambda row: (row["model"], row["source"], row["window"]))
    for number, ((model, source, _), rows) in enumerate(texts):
        group = list(rows)
        cut, whole = ([row for row in group if is_cut(row) == goes] for goes in (True, False))
        if group[0]["dense"] and len(whole) > 1:
            caption = f"Perplexity against sparsity, {model} on {source}. The dotted line is the dense model."
            name = f"perplexity{number}"
            gone = "weights not read" if any(map(is_sparse_input, whole)) else "zeros in the pruned linears"
            drawn[name] = figures.perplexity_by_sparsity(whole, name, gone), caption
        timed = [row for row in group if is_sparse_input(row) and row["decode_ratio"] is not None]
        if len({row["sparsity"] for row in timed}) > 1:
            caption = (
                f"Decode speed against weights not read, {model}, with its 95\u00a0% interval. The dotted line is the "
                "bound: reading the weights of the blocks takes all the time."
            )
            drawn[f"decode{number}"] = figures.speed_by_sparsity(timed, f"decode{number}"), caption
        if len(cut) > 1:
            caption = f"Perplexity against what it bought, {model} on {source}: a point a cut. The diamond is dense."
            drawn[f"frontier{number}"] = figures.frontier(cut, f"frontier{number}"), caption
    if blocks := query_named("blocks", run=run):
        seen = any(row["error"] is not None for row in blocks)
        error = "relative squared error of its output on the first calibration batch, and " if seen else ""
        caption = f"By block: {error}its zeros."
        drawn["blocks"] = figures.error_and_sparsity_by_block(blocks), caption
    if results and not any(is_profile(row) or is_sparse_input(row) for row in results):
        drawn["sizes"] = figures.sizes(results), "Weight files on disk, as they were evaluated."
    if speeds := query_named("speeds", run=run):
        caption = (
            "Speed with its 95\u00a0% interval; an open circle where the interval covers 1: "
            f"{_smaller(results)}no faster on this machine."
        )
        drawn["speeds"] = figures.speeds(speeds), caption
    return drawn


def _figures(run: str, results: Sequence[Row]) -> str:
    drawn = "".join(framed(svg, caption) for svg, caption in drawings(run, results).values())
    return section("Figures", f'<div class="figures">{drawn}</div>') if drawn else ""


def _provenance(runs: Sequence[Row]) -> str:
    """What made the numbers, and the commands that repeat them."""
    first = runs[0]
    facts = {
        "Machine": _unique(machine_in_words(row["machine"]) for row in runs),
        "Versions": _unique(versions_in_words(row["versions"]) for row in runs),
        "Dense model": _unique(f"{row['model']}, sha256 {row['model_hash']}" for row in runs),
        "Evaluation text": _unique(f"sha256 {row['dataset_hash']}" for row in runs),
        "Registered": ", ".join(row["registered_version"] for row in runs if row["registered_version"]),
        "Parameters": first["parameters"] if len(runs) == 1 else "",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    commands = "".join(f"<code>{escape(command)}</code>" for command in dict.fromkeys(row["command"] for row in runs))
    return section(
        "Where the numbers come from",
        f'<dl class="facts">{listed}</dl>',
        f"<p>Repeat {'it' if len(runs) == 1 else 'them'} with</p><pre>{commands}</pre>",
    )


def _unique(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
