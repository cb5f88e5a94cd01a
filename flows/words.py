"""The words of each command that runs a flow: what may be said on its command line, and its screen of help."""

import argparse
from typing import Any

from flows import names


class Words(argparse.ArgumentParser):
    """A parser whose complaint is one line, which begins with the field. Options are written out: what is short for one
    today may be short for two tomorrow."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **{"allow_abbrev": False} | named)

    def error(self, message: str) -> None:  # type: ignore[override]
        field, colon, what = message.removeprefix("argument --").partition(": ")
        raise ValueError(f"{field.replace('-', '_') if colon else field}{colon}{what}")


def say_oneshot(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--pruner",
        required=True,
        type=names.pruner,
        help="magnitude, wanda, ria, clearcut, sparsegpt or FILE.py:Class; options follow: sparsegpt,damp=0.02; "
        "none prunes nothing, beside --low-rank svd",
    )
    made.add_argument(
        "--pattern",
        required=True,
        type=names.pattern(names.PATTERNS),
        help="2:4 (any n:m), 50%% (of each row) or 50%%@matrix",
    )
    made.add_argument(
        "--update",
        type=names.one_of(*names.UPDATES),
        help="of the weights that stay: none (as they were; for sparsegpt: without its sweep), sweep, refit; options "
        "follow: refit,drift=0.5",
    )
    made.add_argument("--permute", action="store_true", help="order the inputs of each linear so that n:m keeps more")
    made.add_argument(
        "--low-rank",
        nargs="?",
        const="",
        help="two factors: 0.25 (that share of the bytes, beside the zeros), svd or activation_svd (in place of the "
        "weights); options follow: svd,rank=64,linears=q_proj+o_proj",
    )
    made.add_argument(
        "--reconstruct", nargs="?", const="", help="tune each block once it is pruned; options: epochs=10,rate=0.001"
    )
    made.add_argument(
        "--allocation",
        default="uniform",
        help="how sparsity is shared by the blocks: uniform, owl, a search (adapt, split, random, evolution, milp, "
        "descent, rl, refine, auto; options follow: rl,updates=40), or a JSON file",
    )
    _say_search(made)
    say_modules(made)
    made.add_argument(
        "--order",
        type=names.one_of("block", "group"),
        default="block",
        help="block: calibrate a block at once (the default); group: one group of linears after the other, in one pass",
    )
    say_recovery(made)
    say_texts(made)


def say_slice(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--budget",
        type=names.number(above=0, below=1),
        required=True,
        help="the share of the cost of the blocks that goes, such as 0.3",
    )
    made.add_argument(
        "--cost",
        type=names.one_of(*names.COSTS),
        default="parameters",
        help="what the budget is a share of: parameters (the default), flops (of a prompt as long as the model's "
        "context, 2048 tokens at most), bytes (of the weights), kv (bytes of the cache, of which only head groups, "
        "attentions and whole blocks have a part)",
    )
    made.add_argument(
        "--importance",
        default=names.USUAL_IMPORTANCE,
        type=names.one_of(*names.IMPORTANCES),
        help="of units: weight_norm, activation, wanda_sp (the default), flap, taylor, fisher; of whole blocks, "
        "attentions and FFNs: influence; of all: leave_one_out, which is slow",
    )
    made.add_argument(
        "--allocator",
        default="uniform",
        help="how the budget is shared by the blocks: uniform, a search (adapt, split, random, evolution, milp, "
        "descent, rl, refine, auto; options follow: rl,updates=40, or what rl is paid for beside the loss: rl,kv=1, "
        "or flops, bytes, peak, accuracy), or a JSON file with a share of each such as "
        "[0.2, 0.4], the mean of which is the budget",
    )
    _say_search(made)
    made.add_argument(
        "--units",
        default="head_groups,channels",
        help="what goes: head_groups, query_heads, channels (head_groups,channels); or whole: blocks, or attention, "
        "ffn or both (attention,ffn)",
    )
    made.add_argument(
        "--round-to", type=names.whole(1), default=64, help="the channels that stay are a multiple of it (64)"
    )
    made.add_argument("--no-repair", dest="repair", action="store_false", help="leave what read the units as it was")
    made.add_argument(
        "--export",
        type=names.one_of(*names.FORMS),
        help="uniform or padded (any software loads it), per_layer (with a modeling file); by default the first of "
        "uniform, per_layer and padded that can express the cut",
    )
    made.add_argument(
        "--measure-units",
        type=names.whole(0),
        default=0,
        help="measure the loss without so many units of each kind (0)",
    )
    say_recovery(made)
    say_texts(made)


def say_modules(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--modules", default="*", help="the linears, gate_proj,up_proj, or patterns for their names, mlp.*; all (*)"
    )


def say_sweep(made: argparse.ArgumentParser) -> None:
    made.add_argument("--preset", required=True, type=names.one_of(*names.SWEEPS), help=", ".join(names.SWEEPS))
    made.add_argument("--model", action="append", default=[], help="instead of the preset's; several may be given")
    made.add_argument(
        "--pattern",
        action="append",
        default=[],
        help="only this one of the preset's, such as 2:4, or of cuts --pattern=-30%%; several if given",
    )
    made.add_argument(
        "--pruner",
        action="append",
        default=[],
        type=names.pruner,
        help="instead of the preset's, FILE.py:Class too; several may be given",
    )
    made.add_argument("--calibration", metavar="SOURCE", help="instead of the preset's")
    made.add_argument("--evaluation", metavar="SOURCE", help="instead of the preset's")
    made.add_argument("--samples", type=names.whole(1), help="calibration windows, instead of the preset's")
    made.add_argument("--window", type=names.whole(2), help="tokens of a window, instead of the preset's")
    made.add_argument("--seed", type=names.whole(0), help="of the sampling, instead of the preset's")
    made.add_argument("--runner", default="here", help="here: one run after the other (the default); dask: at once")
    made.add_argument("--workers", help="processes that dask makes for it (2)")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def say_model(made: argparse.ArgumentParser) -> None:
    made.add_argument("--model", default="builtin", help="a folder, a name on the hub, or 'builtin' (the default)")


def _say_search(made: argparse.ArgumentParser) -> None:
    """How an allocator searches."""
    made.add_argument(
        "--allocator-tokens", type=names.whole(1), help="calibration tokens that a search may look at (1000000)"
    )
    made.add_argument(
        "--measure-levels", action="store_true", help="before a search, measure each part alone at each of its levels"
    )


def say_recovery(made: argparse.ArgumentParser) -> None:
    """How what is left is trained."""
    made.add_argument(
        "--recover-tokens",
        type=names.whole(0),
        default=0,
        help="then train what is left on so many tokens, zeros held (0)",
    )
    made.add_argument(
        "--recover-rate", type=names.number(above=0), help="the learning rate at its peak (2e-5; of LoRA 2e-4)"
    )
    made.add_argument(
        "--recover-text",
        action="append",
        default=[],
        metavar="SOURCE",
        help="instead of the calibration text; several mix by weight, a.jsonl=2+b.jsonl=1; of a .jsonl with `messages` "
        "what the assistant says is learned",
    )
    made.add_argument("--recover-batch", type=names.whole(1), default=16, help="windows of a step (16)")
    made.add_argument(
        "--recover-at-once",
        type=names.whole(1),
        help="windows of one forward; fewer take less memory (all of the batch)",
    )
    made.add_argument(
        "--recover-recompute", action="store_true", help="keep no activations: less memory, more time; the same result"
    )
    made.add_argument(
        "--recover", help="full (all weights, the default) or lora; options follow: lora,rank=16,alpha=32"
    )
    made.add_argument(
        "--distil",
        nargs="?",
        const="",
        help="learn from the dense model beside the text; options: temperature=2,soft=1,hard=1",
    )


def say_texts(made: argparse.ArgumentParser) -> None:
    """What is read, where it runs, what is said of it."""
    made.add_argument(
        "--calibration", default="docs", metavar="SOURCE", help="a source's name (docs), or FILE[first:last]"
    )
    made.add_argument(
        "--evaluation", default="docs", metavar="SOURCE", help="the same (docs); .txt, .jsonl or .parquet files"
    )
    made.add_argument("--samples", type=names.whole(1), default=128, help="calibration windows (128)")
    made.add_argument(
        "--window", type=names.whole(2), help="tokens of a window (2048, or the model's context if that is shorter)"
    )
    sampling = names.one_of(*names.SAMPLINGS)
    made.add_argument("--sampling", type=sampling, default="random", help="which windows: random (seeded) or first")
    made.add_argument("--seed", type=names.whole(0), default=0, help="of the sampling (0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    made.add_argument("--no-speed", dest="speed", action="store_false", help="do not time the models")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")
