"""`python -m bench.sparse_decode`: how fast a Llama with wide FFNs decodes when it reads a part of its inputs.

Random weights, one sequence, in turns with the dense model, for several shares that are not read; the bound is what
would be if reading the weights of the blocks and the head took all of the time. Each share is a line of
`<results>/sparse-decode.jsonl`, with the largest difference of the logits to the same model computed with zeros;
sparse-decode.md is written from the last start's lines, by `--table` without measuring.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.lines import add_options, last_start
from bench.texts import add_line, read_lines
from tasks.evaluate.speed import compare_speed
from tasks.model.anatomy import find_blocks
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.fast import fast
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.threshold import Threshold
from tasks.prune.weight.pattern import Unstructured
from tasks.record.provenance import machine, versions

VOCABULARY, WINDOWS, WINDOW = 4096, 2, 64
SHARES = (0.25, 0.4, 0.5, 0.65, 0.75)
TO_REACH = {0.5: 1.35, 0.75: 1.9}  # times the dense model's speed, by share


def main() -> None:
    choice = parse(sys.argv[1:])
    file = choice.results / "sparse-decode.jsonl"
    if not choice.table:
        torch.set_num_threads(choice.threads)
        run(file, choice)
    text = markdown(read_lines(file))
    (choice.results / "sparse-decode.md").write_text(text, encoding="utf-8")
    print(text)


def run(file: Path, choice: argparse.Namespace) -> None:
    """A line about the circumstances, then one for each share."""
    dense, sparse = make(choice), make(choice)
    facts = {"command": shlex.join(["python", "-m", "bench.sparse_decode", *sys.argv[1:]]), "machine": machine()}
    facts |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions()}
    facts |= {"threads": choice.threads, "width": choice.width, "ffn": choice.ffn, "blocks": choice.blocks}
    add_line(file, facts)
    for share in choice.shares:
        line = measure(dense, sparse, share, choice)
        add_line(file, line)
        print(json.dumps(line), file=sys.stderr)


def make(choice: argparse.Namespace) -> LlamaForCausalLM:
    """The same model each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=choice.width,
        intermediate_size=choice.ffn,
        num_hidden_layers=choice.blocks,
        num_attention_heads=choice.width // 64,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def measure(
    dense: LlamaForCausalLM, sparse: LlamaForCausalLM, share: float, choice: argparse.Namespace
) -> dict[str, Any]:
    """Decode speed with `share` of the inputs not read, and how far its logits are from those of the masked model."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (WINDOWS, WINDOW), generator=generator)
    recipe = ActivationRecipe(selection=Threshold(), pattern=Unstructured(share))
    with sparse_inputs(sparse, recipe, [ids]):
        masked = first_logits(sparse, ids)
        with fast(sparse) as decisions:
            difference = (first_logits(sparse, ids) - masked).abs().max().item()
            rows = compare_speed(
                dense, sparse, vocab_size=VOCABULARY, prompt_tokens=16, decode_tokens=16, repetitions=choice.repetitions
            )
    [decode] = [row for row in rows if (row.subject, row.phase) == ("pruned", "decode")]
    blocks = sum(each.numel() for each in find_blocks(dense)[1].parameters())
    read = blocks + dense.lm_head.weight.numel()
    bound = read / (read - share * blocks)
    won = [each.shape.inputs for each in decisions.values() if each.most_tokens]
    return {
        "share": share,
        "ratio": decode.ratio,
        "low": decode.ratio_low,
        "high": decode.ratio_high,
        "tokens_per_s": decode.tokens_per_s,
        "bound": bound,
        "products_that_win": f"{len(won)} of {len(decisions)}",
        "product": "+".join(sorted({each.product for each in decisions})),
        "largest_difference": difference,
    }


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The shares of the last start, with what was to be reached."""
    start, measured = last_start(lines)
    return "\n".join(
        [
            "# Decoding with sparse inputs",
            "",
            f"{start['date']}, `{start['command']}`. A Llama of width {start['width']}, FFN {start['ffn']},",
            f"{start['blocks']} blocks, random weights, float32, one sequence, {start['threads']} threads; inputs",
            "above a threshold are read. Speeds are those of pairs with the dense model in turns: the median, its 95 %",
            "interval. The bound is that of the bytes of the weights; products are q/k/v, o, gate/up and down, dense",
            "where reading kept rows alone would lose; kept rows are read by the product named here, one of",
            "`tasks/prune/activation/products.py`. The difference is that of the logits to the masked model's.",
            f"Machine: {start['machine']}.",
            "",
            "| not read | tokens/s | times faster | to reach | bound | part of it | sparse products | difference |",
            "| ---: | ---: | --- | --- | ---: | ---: | --- | ---: |",
            *map(_row, measured),
            "",
        ]
    )


def _row(line: dict[str, Any]) -> str:
    goal = TO_REACH.get(line["share"])
    cells = [
        f"{line['share']:.0%}",
        f"{line['tokens_per_s']:.1f}",
        f"{line['ratio']:.2f} ({line['low']:.2f} to {line['high']:.2f})",
        "" if goal is None else f"{goal}: {'met' if line['ratio'] >= goal else 'missed'}",
        f"{line['bound']:.2f}",
        f"{line['ratio'] / line['bound']:.2f}",
        f"{line['products_that_win']} {line['product']}",
        f"{line['largest_difference']:.1e}",
    ]
    return f"| {' | '.join(cells)} |"


@torch.no_grad()
def first_logits(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Of a sequence of one token: what decoding computes."""
    return model(ids[:1, :1]).logits


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sparse_decode", description=__doc__)
    parser.add_argument("--width", type=int, default=2048, help="of the model (2048)")
    parser.add_argument("--ffn", type=int, default=8192, help="its width (8192)")
    parser.add_argument("--blocks", type=int, default=8, help="(8)")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="that are not read (0.25 to 0.75)")
    parser.add_argument("--repetitions", type=int, default=15, help="pairs of timings (15)")
    add_options(parser, threads=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
