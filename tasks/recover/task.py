"""The door of the recovery room: the stage `recover_checkpoint`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from safetensors.torch import load_file

from tasks.caching import cache_key
from tasks.data.mixture import Part, mix
from tasks.handles import Checkpoint, RecoveryRow, Tokens
from tasks.model.load import load_model, save_model
from tasks.progress import progress
from tasks.record import home
from tasks.record.unfinished import workplace
from tasks.recover.recover import Step, recover
from tasks.recover.recovery import Recovery
from tasks.stage import open_folder, stage

CHECKPOINT_EVERY = 50  # steps; what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The same model with other weights, and what it was trained on."""

    checkpoint: Checkpoint
    size_bytes: int
    sources: tuple[RecoveryRow, ...]


@stage()
def recover_checkpoint(checkpoint: Checkpoint, text: Tokens, recovery: Recovery, device: str) -> Trained:
    """Train the whole model on `text`; zeros stay zeros, and the result has the form and the dtype of `checkpoint`.

    A text shorter than `recovery.tokens` is shown again, in a new order. Killed, it goes on from its last state when it
    is called with the same inputs.
    """
    inputs = {"checkpoint": checkpoint, "text": text, "recovery": recovery, "device": device}
    folder = open_folder(checkpoint)
    ids_T = load_file(open_folder(text) / "tokens.safetensors")["ids"]
    windows = mix(
        [Part(source=text.source, ids_T=ids_T)],
        window=text.window,
        tokens=recovery.tokens,
        seed=recovery.seed,
        exhausted="repeat",
    )
    model = load_model(folder, device, run_code=checkpoint.kind == "per_layer")
    dtype = model.dtype
    with (
        workplace(cache_key(recover_checkpoint.fn)(None, inputs)) as place,
        progress("recover", total=recovery.steps(text.window)) as reach,
    ):
        trained = recover(
            model.float(),
            windows,
            recovery,
            checkpoint=place / "state.safetensors",
            checkpoint_every=CHECKPOINT_EVERY,
            report=lambda step: reach(step.step + 1),
        )
        with home.store("checkpoints") as draft:
            save_model(model.to(dtype), folder, draft.path)  # type: ignore[arg-type]
    [source] = trained.sources
    row = RecoveryRow(
        source=source.source,
        windows=source.windows,
        distinct=source.distinct,
        read=source.read,
        learned=source.learned,
        steps=len(trained.curve),
        first_loss=_mean_loss(trained.curve[: max(1, len(trained.curve) // 10)]),
        last_loss=_mean_loss(trained.curve[-max(1, len(trained.curve) // 10) :]),
    )
    return Trained(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind=checkpoint.kind),
        size_bytes=draft.stored.size_bytes,
        sources=(row,),
    )


def _mean_loss(steps: Sequence[Step]) -> float:
    """Steps learn nearly equal numbers of tokens."""
    return fmean(step.loss for step in steps)
