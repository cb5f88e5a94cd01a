"""Whole runs as functions that return typed parameters. `espalier sweep --preset NAME` runs the sweeps among them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flows.activation_choices import Activation
from flows.activation_presets import GROUPS, MODULES, SHARES, activation_points, table_points
from flows.choices import Oneshot, Slice, Sweep
from flows.methods import parse_allocation, parse_importance, parse_pruner, parse_reconstruct, parse_update
from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.importance import ImportanceByKind
from tasks.prune import PRUNERS
from tasks.train_controller.allocators import SEARCHERS


def grid(name: str, pruners: Iterable[str], patterns: Iterable[str], **shared: object) -> Sweep:
    """Every pruner with every pattern; what they share is computed once."""
    points = [
        Oneshot.parse(pruner=parse_pruner(pruner), pattern=pattern, **shared)
        for pattern in patterns
        for pruner in pruners
    ]
    return Sweep(name=name, points=tuple(points))


def demo() -> Sweep:
    """The built-in model, three methods, two patterns, and one cut: what `make demo` runs."""
    shared: dict[str, Any] = {"samples": 64, "window": 256}
    pruned = grid("demo", ("magnitude", "wanda", "sparsegpt"), ("50%", "2:4"), **shared)
    cut = Slice.parse(budget=0.3, importance=parse_importance("wanda_sp"), **shared)
    return Sweep(name="demo", points=(*pruned.points, cut))


def patterns() -> Sweep:
    """How much each pattern costs: SparseGPT and Wanda on the built-in model over sparsities and n:m."""
    steps = ("30%", "40%", "50%", "60%", "70%", "1:4", "2:4", "3:4", "4:8", "8:16", "16:32")
    return grid("patterns", ("wanda", "sparsegpt"), steps, samples=64, window=256, speed=False)


def methods() -> Sweep:
    """Every method at every usual pattern, and what refit, permuted inputs and tuned blocks add: to choose from."""
    shared: dict[str, Any] = {"samples": 64, "window": 256, "speed": False}
    steps = ("50%", "60%", "70%", "2:4", "4:8")
    plain = grid("methods", PRUNERS, steps, **shared)
    refit = grid("methods", ("wanda", "sparsegpt"), steps, update=parse_update("refit"), **shared)
    permuted = grid("methods", ("wanda", "sparsegpt"), ("2:4", "4:8"), permute=True, **shared)
    tuned = parse_reconstruct("")
    best = grid("methods", ("sparsegpt",), steps, update=parse_update("refit,drift=0.5"), reconstruct=tuned, **shared)
    return Sweep(name="methods", points=plain.points + refit.points + permuted.points + best.points)


def ladder() -> Sweep:
    """From one calibration of the built-in model a rung every 10 %: what is left, what it costs, how fast it is."""
    importance = parse_importance("wanda_sp")
    points = [
        Slice.parse(budget=percent / 100, importance=importance, samples=64, window=256)
        for percent in range(10, 70, 10)
    ]
    return Sweep(name="ladder", points=tuple(points))


def allocators() -> Sweep:
    """The allocators side by side at equal looks: 20 to 40 % of the units of the built-in model, and 60 % zeros."""
    shared: dict[str, Any] = {"samples": 64, "window": 256, "speed": False}
    points: list[Oneshot | Slice | Activation] = []
    for name in SEARCHERS:
        looking: dict[str, Any] = {} if name == "uniform" else {"allocator_tokens": 500_000}
        points += [Slice.parse(budget=percent / 100, allocator=name, **looking, **shared) for percent in (20, 30, 40)]
        zeros: dict[str, Any] = {
            "pruner": parse_pruner("wanda"),
            "pattern": "60%",
            "allocation": parse_allocation(name),
        }
        points.append(Oneshot.parse(**zeros, **looking, **shared))
    return Sweep(name="allocators", points=tuple(points))


def importances() -> Sweep:
    """By what units are best chosen: a cut of 30 % by each importance, and how each orders units beside the measured
    loss without them. Not by that loss itself, which takes a forward for every unit."""
    shared: dict[str, Any] = {"budget": 0.3, "samples": 64, "window": 256, "measure_units": 24, "speed": False}
    names = [name for name, kind in IMPORTANCES.items() if not issubclass(kind, ImportanceByKind)]
    points = [Slice.parse(importance=parse_importance(name), **shared) for name in names]
    return Sweep(name="importances", points=tuple(points))


def activation() -> Sweep:
    """Sparse inputs of the built-in model in all the ways there are, beside sparse weights at equal ratios."""
    shared: dict[str, Any] = {"samples": 64, "window": 256, "speed": False}
    weights = grid("activation", ("magnitude", "wanda"), (*GROUPS, *SHARES), **shared)
    return Sweep(name="activation", points=activation_points(**shared) + weights.points)


def activation_tables() -> Sweep:
    """Inputs against weights of the built-in model in full: every pattern, all linears, those of FFNs, of attentions,
    and everything that makes up for inputs. Of its 324 runs --pattern chooses."""
    shared: dict[str, Any] = {"samples": 64, "window": 256, "speed": False}
    points: list[Oneshot | Slice | Activation] = []
    for modules in ("*", *MODULES):
        named = tuple(modules.split(","))
        weights = grid("activation-tables", ("magnitude", "wanda"), (*GROUPS, *SHARES), modules=named, **shared)
        points += [*table_points(modules, **shared), *weights.points]
    return Sweep(name="activation-tables", points=tuple(points))


def llama_1b_sparsegpt_2of4() -> Sweep:
    """Llama-3.2-1B to 2:4 with 128 windows of C4, scored on WikiText-2: needs the network (or its cache) and a GPU."""
    return grid(
        "llama-1b-sparsegpt-2of4",
        ("sparsegpt",),
        ("2:4",),
        model="meta-llama/Llama-3.2-1B",
        calibration="c4",
        evaluation="wikitext2",
        samples=128,
        window=2048,
    )


SWEEPS: dict[str, Callable[[], Sweep]] = {
    "demo": demo,
    "patterns": patterns,
    "methods": methods,
    "ladder": ladder,
    "importances": importances,
    "allocators": allocators,
    "activation": activation,
    "activation-tables": activation_tables,
    "llama-1b-sparsegpt-2of4": llama_1b_sparsegpt_2of4,
}


def sweep_named(
    preset: str, models: Sequence[str] = (), only: Sequence[str] = (), pruners: Sequence[str] = (), **changed: Any
) -> Sweep:
    """The parameters of a preset, for each of `models` if some are given, with fields of its points changed.

    `only`: the patterns to run, of those that the preset has; all if none are given. `pruners`: instead of the
    preset's, in all that it does with them. ValueError lists the names there are, and says which field is not valid.
    """
    if preset not in SWEEPS:
        raise ValueError(f"preset: {preset!r} is unknown; choose one of {', '.join(SWEEPS)}")
    sweep = SWEEPS[preset]()
    valid = list(dict.fromkeys(point.pattern for point in sweep.points))
    if unknown := [pattern for pattern in only if pattern not in valid]:
        raise ValueError(f"pattern: {unknown[0]!r} is not in the preset {preset}; choose some of {', '.join(valid)}")
    if pruners and not any(isinstance(point, Oneshot) for point in sweep.points):
        raise ValueError(f"pruner: {pruners[0]} given, but the preset {preset} prunes no weights; leave it out")
    chosen = [{"pruner": parse_pruner(pruner)} for pruner in pruners]
    points = [
        type(point).parse(**dict(point) | changed | ({"model": model} if model else {}) | own)
        for model in models or (None,)
        for point in sweep.points
        if point.pattern in (only or valid)
        for own in (chosen if chosen and isinstance(point, Oneshot) else [{}])
    ]
    return Sweep(name=sweep.name, points=tuple({point.command(): point for point in points}.values()))
