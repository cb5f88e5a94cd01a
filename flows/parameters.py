"""The words of a command as the parameters of its flow. Raises ValueError in one line for what cannot be meant."""

import argparse
from typing import Any

from flows.choices import Oneshot, Slice, Sweep
from flows.methods import (
    parse_allocation,
    parse_importance,
    parse_low_rank,
    parse_pruner,
    parse_reconstruct,
    parse_update,
)
from flows.presets import sweep_named
from flows.recoveries import parse_distil, parse_recover


def oneshot_of(arguments: argparse.Namespace) -> Oneshot:
    taken = {name: value for name, value in vars(arguments).items() if name in Oneshot.model_fields}
    taken["pruner"] = parse_pruner(arguments.pruner)
    taken["update"] = None if arguments.update is None else parse_update(arguments.update)
    taken["low_rank"] = None if arguments.low_rank is None else parse_low_rank(arguments.low_rank)
    taken["reconstruct"] = None if arguments.reconstruct is None else parse_reconstruct(arguments.reconstruct)
    taken["allocation"] = parse_allocation(arguments.allocation)
    taken["modules"] = tuple(filter(None, arguments.modules.split(",")))
    return Oneshot.parse(**taken | _recovery_of(arguments))


def slice_of(arguments: argparse.Namespace) -> Slice:
    taken = {name: value for name, value in vars(arguments).items() if name in Slice.model_fields}
    taken["importance"] = parse_importance(arguments.importance)
    taken["units"] = tuple(arguments.units.split(","))
    return Slice.parse(**taken | _recovery_of(arguments))


def sweep_of(arguments: argparse.Namespace) -> Sweep:
    names = ("calibration", "evaluation", "samples", "window", "seed")
    changed = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return sweep_named(arguments.preset, arguments.model, arguments.pattern, arguments.pruner, **changed)


def _recovery_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The words of a recovery that are choices."""
    said = (("recover", parse_recover), ("distil", parse_distil))
    return {name: parse(getattr(arguments, name)) for name, parse in said if getattr(arguments, name) is not None}
