"""The door of the recovery room: the stages `recover_checkpoint` and `cut_moments`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.caching import cache_key
from tasks.data.mixture import Part, mix
from tasks.handles import Checkpoint, RecoveryRow, Tokens
from tasks.progress import progress
from tasks.prune.structure.along import slice_along
from tasks.prune.structure.cut import Cut, chosen_units
from tasks.prune.structure.results import Scored
from tasks.prune.structure.task import load_to_cut, read_scores
from tasks.record import home
from tasks.record.unfinished import workplace
from tasks.recover.checkpoint import Training, recover_folder
from tasks.recover.moments import FILE, Moments, moments_in
from tasks.recover.recover import Step
from tasks.recover.recovery import Span
from tasks.stage import open_folder, stage

CHECKPOINT_EVERY = 50  # steps; what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The same model with other weights, and what it was trained on: a row per text.

    Of a span of a training the rows count all steps until its end, and tell the losses of its own. `moments`: what the
    next span begins with; None where all of the training is done.
    """

    checkpoint: Checkpoint
    size_bytes: int
    sources: tuple[RecoveryRow, ...]
    moments: Moments | None = None


@stage()
def recover_checkpoint(
    checkpoint: Checkpoint,
    texts: Sequence[Tokens],
    weights: Sequence[float],
    training: Training,
    device: str,
    dense: Checkpoint | None = None,
    span: Span | None = None,
    moments: Moments | None = None,
) -> Trained:
    """Train `checkpoint` on `texts`, mixed by `weights`; zeros stay zeros, its form and its dtypes what they are.

    A text shorter than its share is shown again, in a new order. `dense`: whom `training` distils from. `span`: only
    these steps of the training, with the `moments` that those before have left. Killed, it goes on from its last state
    when it is called with the same inputs.
    """
    inputs = {
        "checkpoint": checkpoint,
        "texts": texts,
        "weights": weights,
        "training": training,
        "device": device,
        "dense": dense,
        "span": span,
        "moments": moments,
    }
    recovery, window = training.recovery, texts[0].window
    steps = recovery.steps(window)
    span = span or Span(first=0, last=steps)
    parts = [_part(text, weight) for text, weight in zip(texts, weights, strict=True)]
    windows = mix(parts, window=window, tokens=recovery.tokens, seed=recovery.seed, exhausted="repeat")
    with (
        workplace(cache_key(recover_checkpoint.fn)(None, inputs)) as place,
        progress("recover", total=span.steps) as reach,
        home.store("checkpoints") as draft,
    ):
        state = place / "state.safetensors"
        trained = recover_folder(
            open_folder(checkpoint),
            draft.path,
            windows,
            training,
            dense=None if dense is None else open_folder(dense),
            span=span,
            moments=None if moments is None else open_folder(moments) / FILE,
            run_code=checkpoint.kind == "per_layer",
            device=device,
            state=state,
            state_every=CHECKPOINT_EVERY,
            report=lambda step: reach(step.step + 1 - span.first),
        )
        left = _store(moments_in(state)) if span.last < steps else None
    tenth = max(1, len(trained.curve) // 10)
    first_loss, last_loss = _mean_loss(trained.curve[:tenth]), _mean_loss(trained.curve[-tenth:])
    return Trained(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind=checkpoint.kind),
        size_bytes=draft.stored.size_bytes,
        sources=tuple(
            RecoveryRow(**asdict(source), steps=span.last, first_loss=first_loss, last_loss=last_loss)
            for source in trained.sources
        ),
        moments=left,
    )


@stage()
def cut_moments(moments: Moments, model: Checkpoint, scored: Scored, cut: Cut, dense: Checkpoint) -> Moments:
    """What stays of `moments` once `cut`, which says how many units are left, is made in `model` by these scores.

    `dense`: what `model` was cut from before.
    """
    network = load_to_cut(model, dense)
    choice, _ = chosen_units(network, read_scores(scored), cut, batches=())
    return _store(slice_along(network, choice.kept, load_file(open_folder(moments) / FILE)))


def _store(moments: dict[str, Tensor]) -> Moments:
    with home.store("moments") as draft:
        save_file(moments, draft.path / FILE)
    return Moments(hash=draft.stored.hash, folder=draft.stored.folder)


def _part(text: Tokens, weight: float) -> Part:
    stored = load_file(open_folder(text) / "tokens.safetensors")
    return Part(source=text.source, ids_T=stored["ids"], labels_T=stored.get("labels"), weight=weight)


def _mean_loss(steps: Sequence[Step]) -> float:
    """Of a token that is learned: where texts are mixed, steps learn unequal numbers of them."""
    return fmean([step.loss for step in steps], weights=[step.learned for step in steps])
