"""The door of the recovery room: the stage `recover_checkpoint`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from safetensors.torch import load_file

from tasks.caching import cache_key
from tasks.data.mixture import Part, mix
from tasks.handles import Checkpoint, RecoveryRow, Tokens
from tasks.progress import progress
from tasks.record import home
from tasks.record.unfinished import workplace
from tasks.recover.checkpoint import Training, recover_folder
from tasks.recover.recover import Step
from tasks.stage import open_folder, stage

CHECKPOINT_EVERY = 50  # steps; what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The same model with other weights, and what it was trained on: a row per text."""

    checkpoint: Checkpoint
    size_bytes: int
    sources: tuple[RecoveryRow, ...]


@stage()
def recover_checkpoint(
    checkpoint: Checkpoint,
    texts: Sequence[Tokens],
    weights: Sequence[float],
    training: Training,
    device: str,
    dense: Checkpoint | None = None,
) -> Trained:
    """Train `checkpoint` on `texts`, mixed by `weights`; zeros stay zeros, its form and its dtypes what they are.

    A text shorter than its share is shown again, in a new order. `dense`: whom `training` distils from. Killed, it goes
    on from its last state when it is called with the same inputs.
    """
    inputs = {
        "checkpoint": checkpoint,
        "texts": texts,
        "weights": weights,
        "training": training,
        "device": device,
        "dense": dense,
    }
    recovery, window = training.recovery, texts[0].window
    parts = [_part(text, weight) for text, weight in zip(texts, weights, strict=True)]
    windows = mix(parts, window=window, tokens=recovery.tokens, seed=recovery.seed, exhausted="repeat")
    with (
        workplace(cache_key(recover_checkpoint.fn)(None, inputs)) as place,
        progress("recover", total=recovery.steps(window)) as reach,
        home.store("checkpoints") as draft,
    ):
        trained = recover_folder(
            open_folder(checkpoint),
            draft.path,
            windows,
            training,
            dense=None if dense is None else open_folder(dense),
            run_code=checkpoint.kind == "per_layer",
            device=device,
            state=place / "state.safetensors",
            state_every=CHECKPOINT_EVERY,
            report=lambda step: reach(step.step + 1),
        )
    tenth = max(1, len(trained.curve) // 10)
    first_loss, last_loss = _mean_loss(trained.curve[:tenth]), _mean_loss(trained.curve[-tenth:])
    return Trained(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind=checkpoint.kind),
        size_bytes=draft.stored.size_bytes,
        sources=tuple(
            RecoveryRow(**asdict(source), steps=len(trained.curve), first_loss=first_loss, last_loss=last_loss)
            for source in trained.sources
        ),
    )


def _part(text: Tokens, weight: float) -> Part:
    stored = load_file(open_folder(text) / "tokens.safetensors")
    return Part(source=text.source, ids_T=stored["ids"], labels_T=stored.get("labels"), weight=weight)


def _mean_loss(steps: Sequence[Step]) -> float:
    """Of a token that is learned: where texts are mixed, steps learn unequal numbers of them."""
    return fmean([step.loss for step in steps], weights=[step.learned for step in steps])
