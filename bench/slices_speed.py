"""`python -m bench.slices_speed`: how much faster a cut really is, beside what the smaller model allows.

The dense model and the cut one take turns (tasks.evaluate.speed). Decoding is allowed the ratio of the bytes that a
token of each sequence reads, weights and caches; prefill that of the multiplications. A line per cut and batch goes to
`<results>/slices-speed.jsonl`, and slices-speed.md is written from the last start's lines. Weights and ids are random.

    python -m bench.slices_speed --shape 8b --batches 1 32 --device cuda    # slices-speed-8b, in bfloat16
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.gpu_pruning import SHAPES
from bench.lines import add_options, last_start
from bench.models import random_llama
from bench.texts import add_line, read_lines
from tasks.calibrate.importance.weight_norm import WeightNorm
from tasks.evaluate.speed import PHASES, compare_speed
from tasks.model.cost import sizes_of
from tasks.prune.structure.choose import choose_units
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.width import slice_units
from tasks.record.provenance import machine, versions

OWN, MODEL = "110m", "Llama of 109.5 M parameters, float32"
LEAST = 0.85  # of what is allowed, to be reached


def cut_units(model: PreTrainedModel, kind: str, share: float, round_to: int) -> None:
    slice_units(model, choose_units(model, WeightNorm().score(model), {kind: share}, round_to=round_to).kept)


def cut_blocks(model: PreTrainedModel, share: float) -> None:
    """Spread evenly, neither the first nor the last."""
    blocks = model.config.num_hidden_layers
    count = round(share * blocks)
    slice_blocks(model, blocks=[(place + 1) * blocks // (count + 1) for place in range(count)])


CUTS: dict[str, Callable[[PreTrainedModel], None]] = {
    "nothing": lambda model: None,
    "FFN -30 %, multiple of 64": partial(cut_units, kind="channels", share=0.3, round_to=64),
    "FFN -30 %, odd": partial(cut_units, kind="channels", share=615 / 2048, round_to=1),
    "heads -30 %": partial(cut_units, kind="head_groups", share=0.3, round_to=64),
    "depth -25 %": partial(cut_blocks, share=0.25),
}


def main() -> None:
    choice = parse(sys.argv[1:])
    torch.set_num_threads(choice.threads)
    stem = "slices-speed" if choice.shape == OWN else f"slices-speed-{choice.shape}"
    file = choice.results / f"{stem}.jsonl"
    if not choice.table:
        add_line(file, circumstances(choice))
        for name in choice.cuts:
            for line in measure(name, choice):
                add_line(file, {"cut": name} | line)
    text = markdown(read_lines(file))
    (choice.results / f"{stem}.md").write_text(text, encoding="utf-8")
    print(text)


def model_of(choice: argparse.Namespace) -> PreTrainedModel:
    """Its own model in float32, or one of the shapes of bench.gpu in bfloat16; the same each time."""
    device = torch.device(choice.device)
    if choice.shape == OWN:
        return random_llama().to(device)
    return SHAPES[choice.shape].random_model(choice.blocks, device)


def circumstances(choice: argparse.Namespace) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "bench.slices_speed", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "model": f"Llama of the shape {choice.shape}, {choice.blocks} blocks, bfloat16"
        if choice.shape != OWN
        else MODEL,
        "device": choice.device,
        "threads": choice.threads,
        "load": os.getloadavg()[0],
        "tokens": {"prefill": choice.prompt, "decode": choice.decode},
        "repetitions": choice.repetitions,
    }


def measure(name: str, choice: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """For each batch the widths of the blocks that are left, what is allowed, and the rows of both models."""
    dense, cut = model_of(choice), model_of(choice)
    CUTS[name](cut)
    for batch in choice.batches:
        rows = compare_speed(
            dense,
            cut,
            vocab_size=dense.config.vocab_size,
            prompt_tokens=choice.prompt,
            decode_tokens=choice.decode,
            batch=batch,
            repetitions=choice.repetitions,
        )
        needs = [of_phases(model, choice.prompt, choice.decode, batch) for model in (dense, cut)]
        yield {
            "batch": batch,
            "blocks": [asdict(widths) for widths in sizes_of(cut)[1]],
            "allowed": {phase: needs[0][phase] / needs[1][phase] for phase in PHASES},
            "rows": [asdict(row) for row in rows],
        }


def of_phases(model: PreTrainedModel, prompt: int, decode: int, batch: int = 1) -> dict[str, float]:
    """FLOPs of a prefill that makes logits for its last token alone; bytes of a token in the middle of decoding."""
    frame, widths = sizes_of(model)
    whole, middle = frame.cost(widths, tokens=prompt), frame.cost(widths, tokens=prompt + decode // 2)
    return {
        "prefill": batch * (whole.prefill_flops - 2 * (prompt - 1) * frame.outside_macs),
        "decode": middle.weight_bytes + batch * middle.kv_bytes,
    }


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """Of the lines since the last start."""
    start, cuts = last_start(lines)
    return "\n".join(
        [
            "# How much faster a cut model is, and what it allows",
            "",
            f"{start['date']}, `{start['command']}`; threads: {start['threads']}, load average {start['load']:.1f} at",
            f"the start. Machine: {start['machine']}.",
            "",
            f"{start.get('model', MODEL)}, random weights. Speed is against the dense model, the",
            f"median of {start['repetitions']} pairs of turns with its 95 % interval: a prefill of "
            f"{start['tokens']['prefill']} tokens, and {start['tokens']['decode']} tokens decoded",
            "after it. Allowed: the ratio of bytes read a token (decode), of FLOPs (prefill). To be reached:",
            f"{LEAST} of it. A cut of nothing shows the error of the method. More than 1 is reached where time goes",
            "with the number of operations too, of which there are fewer.",
            "",
            "| cut | blocks | batch | phase | dense, tokens/s | cut, tokens/s | ratio | allowed | reached |",
            "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
            *(row for line in cuts for row in _rows(line)),
            "",
        ]
    )


def _rows(line: dict[str, Any]) -> list[str]:
    first = line["blocks"][0]
    blocks = f"{len(line['blocks'])} with {first['query_heads']} heads, {first['channels']} channels"
    blocks += f" | {line.get('batch', 1)}"
    rows = {(row["subject"], row["phase"]): row for row in line["rows"]}
    text = []
    for phase in PHASES:
        dense, cut, allowed = rows["dense", phase], rows["pruned", phase], line["allowed"][phase]
        ratio = f"{cut['ratio']:.3f} ({cut['ratio_low']:.3f} to {cut['ratio_high']:.3f})"
        speeds = f"{dense['tokens_per_s']:.1f} | {cut['tokens_per_s']:.1f}"
        reached = f"{cut['ratio'] / allowed:.3f}"
        text.append(f"| {line['cut']} | {blocks} | {phase} | {speeds} | {ratio} | {allowed:.3f} | {reached} |")
    return text


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.slices_speed", description=__doc__)
    parser.add_argument("--cuts", nargs="+", choices=CUTS, default=list(CUTS), help="(all)")
    parser.add_argument("--shape", choices=(OWN, *SHAPES), default=OWN, help=f"of the Llama ({OWN})")
    parser.add_argument("--blocks", type=int, default=32, help="of the other shapes (32)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="sequences at once (1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of a prefill (256)")
    parser.add_argument("--decode", type=int, default=32, help="tokens decoded after it (32)")
    parser.add_argument("--repetitions", type=int, default=15, help="pairs of turns (15)")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
