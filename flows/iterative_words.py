"""`espalier iterative`: its words, the stages that it only tells, and its run."""

import argparse
import json
from typing import TYPE_CHECKING

from flows import names
from flows.terminal import show_rows
from flows.words import say_model, say_recovery, say_texts

if TYPE_CHECKING:
    from flows.iterative_presets import Preset


def say_iterative(made: argparse.ArgumentParser) -> None:
    """What is not said is as the preset has it, or as the flow has it by itself."""
    made.add_argument(
        "--preset",
        help="small (the built-in model, minutes), mobilellm-350m, mobilellm-600m, mobilellm-1b, qwen2.5-0.5b, "
        "deepseek-r1-distill-qwen-1.5b, llama-3.2-1b; other words change it",
    )
    made.add_argument("--dry-run", action="store_true", help="print the stages; no weights are loaded")
    say_model(made)
    made.add_argument("--target-parameters", type=names.whole(1), help="what is to be left of the whole model")
    made.add_argument("--stages", type=names.whole(1), help="the model is cut so often, and trained after each cut")
    made.add_argument(
        "--importance",
        type=names.one_of(*names.IMPORTANCES),
        help="of units: weight_norm, activation, wanda_sp (the default), flap, taylor, fisher, leave_one_out",
    )
    made.add_argument(
        "--allocator",
        help="how a stage's cut is divided among the blocks: uniform (the default), or adapt, by how much each changes "
        "what flows through it; options follow: adapt,amplitude=0.02,step=0.02",
    )
    made.add_argument("--calibration-window", type=names.whole(2), help="tokens of a calibration window (as --window)")
    made.add_argument("--round-to", type=names.whole(1), help="the channels that stay are a multiple of it (64)")
    made.add_argument("--no-repair", dest="repair", action="store_false", help="leave what read the units as it was")
    say_recovery(made)
    say_texts(made)
    silent = {name for name in vars(made.parse_args([])) if name not in ("run", "json", "dry_run")}
    made.set_defaults(**dict.fromkeys(silent))


def preset_of(arguments: argparse.Namespace) -> "Preset":
    """The words as the parameters of the flow, and what is known of the model. ValueError in one line."""
    from flows.iterative_choices import Iterative, parse_allocator
    from flows.iterative_presets import Preset, preset_named
    from flows.methods import parse_importance
    from flows.recoveries import parse_distil, parse_recover

    said = {name: value for name, value in vars(arguments).items() if value is not None}
    taken = {name: value for name, value in said.items() if name in Iterative.model_fields}
    choices = {
        "importance": parse_importance,
        "allocator": parse_allocator,
        "recover": parse_recover,
        "distil": parse_distil,
    }
    taken |= {name: parse(said[name]) for name, parse in choices.items() if name in said}
    if arguments.preset is not None:
        return preset_named(arguments.preset, **taken)
    for name in ("target_parameters", "stages", "recover_tokens"):
        if name not in taken:
            raise ValueError(f"{name}: none given; give it, or a --preset")
    return Preset(flow=Iterative.parse(**taken), before=None)


def run_iterative(arguments: argparse.Namespace) -> int:
    preset = preset_of(arguments)
    if arguments.dry_run:
        from flows.iterative_plan import described

        rows = described(preset)
        if arguments.json:
            print(json.dumps({"stages": rows}))
        else:
            show_rows([row | {f"rate_{end}": f"{row[f'rate_{end}']:.3g}" for end in ("from", "to")} for row in rows])
        return 0

    from flows.cli import run_flow
    from flows.iterative_plan import prepare_iterative

    prepare_iterative(preset.flow)  # before a server is started for it

    from flows.iterative import iterative

    return run_flow(lambda: iterative(preset.flow), arguments.json)
