"""Recovery without a pipeline: a folder in, a folder out, in one process or in those that `accelerate launch` starts.

    accelerate launch --config_file tasks/recover/configs/recover_ddp.yaml -m tasks.recover \\
        --checkpoint PRUNED --text train.jsonl --tokens 10000000 --out RECOVERED

Stopped, the same command goes on. Beside the weights lies recovery.json: the loss curve, and what was trained of each
text. Exit code 2: a mistake in the words, in one line.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tasks.data.labelled import check_labelled, read_labelled
from tasks.data.mixture import Mixture, Part, mix
from tasks.model.folder import check_folder
from tasks.model.load import context_of, load_config, load_tokenizer
from tasks.recover.checkpoint import Training, recover_folder, usual_rate
from tasks.recover.distil import Distillation
from tasks.recover.lora import LoRA
from tasks.recover.processes import join
from tasks.recover.recover import Step
from tasks.recover.recovery import Recovery
from tasks.recover.texts import WeightedText, check_texts, parse_texts

USUAL_WINDOW = 2048
STATE_EVERY = 50  # steps


def main(argv: Sequence[str] | None = None) -> int:
    """Recover what the words name; the exit code."""
    try:
        run(parse(argv))
    except ValueError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return 2
    return 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of the command line. ValueError in one line."""
    words = argparse.ArgumentParser(prog="python -m tasks.recover", exit_on_error=False)
    words.add_argument("--checkpoint", type=Path, required=True, help="the folder of the pruned or cut model")
    words.add_argument("--text", action="append", required=True, help="FILE or a source's name; a.jsonl=2+b.jsonl=1")
    words.add_argument("--tokens", type=int, required=True, help="to train on in all")
    words.add_argument("--out", type=Path, required=True, help="the folder that is written")
    words.add_argument("--rate", type=float, help="the learning rate at its peak (2e-5; with --rank 2e-4)")
    words.add_argument("--window", type=int, help="tokens of a window (2048, or the model's context if shorter)")
    words.add_argument("--batch", type=int, default=16, help="windows of a step, of all processes together (16)")
    words.add_argument("--at-once", type=int, help="windows of one forward (a process's whole share of the batch)")
    words.add_argument("--recompute", action="store_true", help="keep no activations: less memory, more time")
    words.add_argument("--rank", type=int, help="train adapters of this rank (LoRA) in place of all weights")
    words.add_argument("--alpha", type=float, help="the adapters' scale is alpha / rank (32)")
    words.add_argument("--dense", type=Path, help="the folder of the dense model, to be distilled from")
    words.add_argument("--temperature", type=float, help="of the distillation (2)")
    words.add_argument("--seed", type=int, default=0, help="of the order of windows and of the adapters (0)")
    words.add_argument("--run-code", action="store_true", help="run the modeling file that the checkpoint brings")
    try:
        given = words.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    for option, needed in (("alpha", "rank"), ("temperature", "dense")):
        if getattr(given, option) is not None and getattr(given, needed) is None:
            raise ValueError(f"{option}: given without {needed}; give {needed} too, or leave it out")
    return given


def run(given: argparse.Namespace) -> None:
    """Read, mix, train, save. ValueError in one line for what cannot be meant."""
    processes = join()
    texts = tuple(text for words in given.text for text in parse_texts(words))
    check_texts(texts)
    _check(given)
    training = _training(given)
    if training.lora is not None and os.environ.get("ACCELERATE_USE_FSDP", "false") == "true":
        raise ValueError("rank: adapters given with FSDP, under which they cannot be merged; valid is DDP")
    recovered = recover_folder(
        given.checkpoint,
        given.out,
        _windows(given, texts),
        training,
        dense=given.dense,
        run_code=given.run_code,
        device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu",
        state=(state := given.out.with_name(f"{given.out.name}.unfinished.safetensors")),
        state_every=STATE_EVERY,
        report=_say if processes.rank == 0 else lambda step: None,
        processes=processes,
    )
    if processes.rank == 0:
        (given.out / "recovery.json").write_text(json.dumps(asdict(recovered), indent=1), encoding="utf-8")
        state.unlink()
    processes.leave()


def _check(given: argparse.Namespace) -> None:
    check_folder(given.checkpoint)
    if any(given.checkpoint.glob("lowrank-*.safetensors")):
        raise ValueError(f"checkpoint: {given.checkpoint} has low-rank factors, which a training would not follow")
    if given.dense is not None:
        check_folder(given.dense)
    if given.out.exists() and any(given.out.iterdir()):
        raise ValueError(f"out: {given.out} is not empty")


def _training(given: argparse.Namespace) -> Training:
    alpha = LoRA.alpha if given.alpha is None else given.alpha
    lora = None if given.rank is None else LoRA(rank=given.rank, alpha=alpha)
    recovery = Recovery(
        tokens=given.tokens,
        rate=usual_rate(lora) if given.rate is None else given.rate,
        batch=given.batch,
        at_once=given.at_once,
        recompute=given.recompute,
        seed=given.seed,
    )
    temperature = Distillation.temperature if given.temperature is None else given.temperature
    distil = None if given.dense is None else Distillation(temperature=temperature)
    return Training(recovery=recovery, lora=lora, distil=distil)


def _windows(given: argparse.Namespace, texts: Sequence[WeightedText]) -> Mixture:
    tokenizer, config = load_tokenizer(given.checkpoint), load_config(given.checkpoint, run_code=given.run_code)
    context = context_of(config)
    window = min(USUAL_WINDOW, context or USUAL_WINDOW) if given.window is None else given.window
    if context is not None and window > context:
        raise ValueError(f"window: {window} given, valid is up to {context}, the model's context")
    for text in texts:
        check_labelled(text.source, tokenizer)
    read = [(read_labelled(text.source, tokenizer), text.weight) for text in texts]
    parts = [Part(source=each.source, ids_T=each.ids_T, labels_T=each.labels_T, weight=w) for each, w in read]
    return mix(parts, window=window, tokens=given.tokens, seed=given.seed, exhausted="repeat")


def _say(step: Step) -> None:
    if step.step % 10 == 0:
        sys.stderr.write(f"step {step.step}: {step.loss:.4f} nats per token learned, rate {step.rate:.2e}\n")


if __name__ == "__main__":
    sys.exit(main())
