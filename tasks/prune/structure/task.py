"""The door of the structure room: `score_units`, `measure_units`, `slice_checkpoint` and `build_profiles`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.batches import batches_of
from tasks.calibrate.importance.correlation import sample_units
from tasks.calibrate.importance.importance import Importance, Scores
from tasks.calibrate.importance.leave_one_out import losses_without
from tasks.handles import Checkpoint, Tokens
from tasks.model.anatomy import find_blocks
from tasks.model.load import load_model
from tasks.model.mapped import mapped_model
from tasks.model.units import units_of
from tasks.progress import progress
from tasks.prune.structure.budget import context_for
from tasks.prune.structure.cut import Cut, best_form, cut_model, passed_over
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.export import export_model, refusals_of
from tasks.prune.structure.named_cuts import UNITS, NamedCut
from tasks.prune.structure.profile_facts import facts_of
from tasks.prune.structure.profile_folder import save_profiles
from tasks.prune.structure.profile_repair import repaired_profile
from tasks.prune.structure.profiles import Profiles
from tasks.prune.structure.recut import load_cut
from tasks.prune.structure.results import BuiltProfiles, Scored, Sliced, UnitLoss
from tasks.prune.structure.rises import measure_rises
from tasks.record import home
from tasks.stage import open_folder, stage


@stage()
def score_units(model: Checkpoint, calibration: Tokens, importance: Importance, name: str, device: str) -> Scored:
    """How much every unit of every block matters on the calibration windows, by the importance of that `name`."""
    with opened(model, device, whole=importance.whole) as network:
        scores = importance.score(network, calibration_batches(calibration, device), device)
    with home.store("scores") as draft:
        named = {f"{block}.{kind}": score_U for block, kinds in enumerate(scores) for kind, score_U in kinds.items()}
        save_file(named, draft.path / "scores.safetensors")
    return Scored(hash=draft.stored.hash, folder=draft.stored.folder, importance=name)


@stage()
def measure_units(
    model: Checkpoint, calibration: Tokens, kinds: tuple[str, ...], count: int, seed: int, device: str
) -> tuple[UnitLoss, ...]:
    """The loss without a unit, for a sample of `count` units of each kind."""
    with opened(model, device, whole=True) as network:
        units = units_of(network)
        sample = [unit for kind in kinds for unit in sample_units(units, kind, count, seed)]
        losses = losses_without(network, calibration_batches(calibration, device), sample)
    return tuple(UnitLoss(block=unit.block, kind=unit.kind, unit=unit.unit, loss=loss) for unit, loss in losses.items())


@stage()
def slice_checkpoint(
    model: Checkpoint,
    calibration: Tokens,
    scored: Scored,
    cut: Cut,
    device: str,
    dense: Checkpoint | None = None,
) -> Sliced:
    """Cut the units of the lowest scores out of `model`, repair what read them, and export what is left.

    `dense`: what `model` was cut from before.
    """
    folder, network = open_folder(model), load_to_cut(model, dense)
    scores, batches = read_scores(scored), calibration_batches(calibration, device)
    with progress(f"slice -{100 * cut.budget:g}%", total=len(find_blocks(network)[1])) as reach:
        rows = cut_model(network, scores, cut, batches, device=device, on_block=lambda row, _: reach(row.block + 1))
    refusals = refusals_of(network)
    form = best_form(refusals, cut.form)
    with home.store("checkpoints") as draft:
        export_model(network, form, folder, draft.path)
    row = CutRow(
        cost=cut.cost,
        context=context_for(network),
        asked=cut.budget,
        removed=rows.removed,
        removed_flops=rows.removed_flops,
        form=form,
        passed_over=passed_over(refusals, form) if cut.form is None else None,
    )
    kind = "per_layer" if form == "per_layer" else "transformers"
    return Sliced(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind=kind),
        form=form,
        size_bytes=draft.stored.size_bytes,
        rows=rows,
        row=row,
    )


@stage()
def build_profiles(
    model: Checkpoint,
    calibration: Tokens,
    scored: tuple[Scored, ...],
    cuts: tuple[NamedCut, ...],
    round_to: int,
    repair: bool,
    device: str,
) -> BuiltProfiles:
    """Cut `model` in every one of these ways, repair what read the units, and store what only the profiles have.

    `scored`: of units, of blocks, or both, as the cuts need them.
    """
    network = load_model(open_folder(model))
    profiles, batches = Profiles(network), calibration_batches(calibration, device)
    every = [read_scores(each) for each in scored]
    scores = [reduce(or_, of_block) for of_block in zip(*every, strict=True)]
    rises = None
    if any(cut.kind == "heads" for cut in cuts):
        rises = measure_rises(network, scores, UNITS["heads"], batches, device=device)
    with progress("profiles", total=len(cuts)) as reach:
        for done, cut in enumerate(cuts, start=1):
            profile = cut.profile(network, scores, rises=rises, round_to=round_to)
            if repair and profile.kept:
                profile = repaired_profile(network, profile, batches, device=device)
            profiles.add(profile)
            reach(done)
    facts = facts_of(profiles)
    with home.store("profiles") as draft:
        save_profiles(profiles, model.hash, draft.path)
    stored = draft.stored
    return BuiltProfiles(hash=stored.hash, folder=stored.folder, size_bytes=stored.size_bytes, facts=facts)


def read_scores(scored: Scored) -> Scores:
    """The scores that `score_units` has stored, block by block."""
    stored = load_file(open_folder(scored) / "scores.safetensors")
    scores: Scores = []
    for name in sorted(stored, key=lambda name: int(name.partition(".")[0])):
        block, _, kind = name.partition(".")
        scores += [{} for _ in range(int(block) + 1 - len(scores))]
        scores[int(block)][kind] = stored[name]
    return scores


def load_to_cut(model: Checkpoint, dense: Checkpoint | None) -> PreTrainedModel:
    """In the classes of transformers: what was exported per layer, cut from `dense`, is of a class of its own."""
    if dense is not None and model.kind == "per_layer":
        return load_cut(open_folder(dense), open_folder(model))
    return load_model(open_folder(model))


@contextmanager
def opened(model: Checkpoint, device: str, *, whole: bool) -> Iterator[PreTrainedModel]:
    """Loaded on the device for whole forwards, as is what brings a modeling file; else mapped from its files, one block
    of it in memory at a time."""
    folder, per_layer = open_folder(model), model.kind == "per_layer"
    if whole or per_layer:
        yield load_model(folder, device, run_code=per_layer)
        return
    with mapped_model(folder) as network:
        yield network


def calibration_batches(calibration: Tokens, device: str) -> Sequence[Tensor]:
    """The calibration windows, as many at once as the device likes."""
    ids: Tensor = load_file(open_folder(calibration) / "tokens.safetensors")["ids"]
    return batches_of(ids, device)
