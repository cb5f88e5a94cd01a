"""`espalier profiles`: its words, and its run."""

import argparse
import json
from typing import TYPE_CHECKING

from flows import names
from flows.server import prefect_server
from flows.terminal import profiles_json, say, show_end
from flows.words import say_model, say_texts

if TYPE_CHECKING:
    from flows.profile_choices import Profiles


def say_profiles(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--profiles",
        help="of heads (head groups of all blocks together), ffn (channels of each block) and depth (blocks) the share "
        "in percent that goes, such as heads20,ffn30,depth25; by default heads and ffn at 10, 20 and 30 and depth20, "
        "as far as the model can take them",
    )
    made.add_argument(
        "--importance",
        default=names.USUAL_IMPORTANCE,
        type=names.one_of(*names.IMPORTANCES),
        help="of heads and channels: weight_norm, activation, wanda_sp (the default), flap, taylor, fisher, "
        "leave_one_out; blocks go by their influence",
    )
    made.add_argument(
        "--round-to", type=names.whole(1), default=64, help="the channels that stay are a multiple of it (64)"
    )
    made.add_argument("--no-repair", dest="repair", action="store_false", help="leave what read the units as it was")
    say_texts(made)


def profiles_of(arguments: argparse.Namespace) -> "Profiles":
    """The words of `espalier profiles` as the parameters of its flow. ValueError in one line."""
    from flows.methods import parse_importance
    from flows.profile_choices import Profiles

    taken = {name: value for name, value in vars(arguments).items() if name in Profiles.model_fields}
    return Profiles.parse(**taken | {"importance": parse_importance(arguments.importance)})


def run_profiles(arguments: argparse.Namespace) -> int:
    from flows.prepare import prepare_profiles

    parameters = profiles_of(arguments)
    prepare_profiles(parameters)  # before a server is started for it

    from flows.profiles import make_profiles

    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = make_profiles(parameters)
    say(f"the profiles are in {outcome.profiles}")
    show_end(outcome.run, outcome.report, arguments.json)
    if arguments.json:
        print(json.dumps(profiles_json(outcome)))
    return 0
