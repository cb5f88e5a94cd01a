"""The words of `espalier generate` and `espalier serve`, and the model that they name."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flows.words import say_model

if TYPE_CHECKING:
    from tasks.train_controller.runtime import Controller

HIGHEST_PORT = 65535


def say_generate(made: argparse.ArgumentParser) -> None:
    _say_controller(made)
    made.add_argument("prompt", help="what the model goes on from; - reads it from standard input")
    made.add_argument("--tokens", type=_whole(1), default=64, help="of the answer at most (64)")
    made.add_argument("--temperature", type=_number, default=0.0, help="0 takes the likeliest token each time (0)")
    made.add_argument("--seed", type=_whole(0), default=0, help="of the tokens that are drawn (0)")
    made.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="ends the answer before it; several may be given"
    )
    made.add_argument("--action", help="in place of a policy's choice: none, a profile, ffn20@window:0.5")
    made.add_argument("--compare", action="store_true", help="answer it some more times, in turn with the whole model")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def say_serve(made: argparse.ArgumentParser) -> None:
    _say_controller(made)
    made.add_argument("--port", type=_whole(0, HIGHEST_PORT), default=8000, help="of 127.0.0.1 (8000); 0: a free one")
    made.add_argument("--queue", type=_whole(0), default=8, help="prompts that wait beside the one being answered (8)")
    made.add_argument("--max-tokens", type=_whole(1), default=512, help="of an answer at most (512)")


def controller_of(arguments: argparse.Namespace) -> "Controller":
    """The model, its profiles and the policy that are named, in memory. ValueError in one line."""
    for field in ("profiles", "policy"):
        folder = getattr(arguments, field)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{field}: {folder} given, which is no folder")

    from flows.device import device_named
    from tasks.model.load import check_folder, resolve
    from tasks.train_controller.runtime import Controller

    device, folder = device_named(arguments.device), resolve(arguments.model)
    check_folder(folder)
    profiles = arguments.profiles
    if arguments.policy is not None and profiles is None:
        profiles = _profiles_of(arguments.policy)
    return Controller.load(folder, profiles, arguments.policy, device=device)


def _profiles_of(policy: Path) -> Path:
    """Those among which it chooses, where a run has stored them."""
    from tasks.record import home
    from tasks.train_controller.learn.policy_folder import profiles_hash_of

    folder = home.locate(f"store/profiles/{profiles_hash_of(policy)}")
    if not folder.is_dir():
        raise ValueError(
            f"profiles: none given, and those of {policy} are not in the artifacts folder; give --profiles"
        )
    return folder


def _say_controller(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--profiles",
        type=Path,
        metavar="FOLDER",
        help="cuts of it, as `espalier profiles` leaves them; of a policy its own, where they are stored here",
    )
    made.add_argument(
        "--policy", type=Path, metavar="FOLDER", help="what chooses among them, as `espalier controller` leaves it"
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers for argparse, whose error says what is valid."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= (int(text) if high is None else high):
            valid = f"{low} or more" if high is None else f"{low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} given, valid is a whole number, {valid}")
        return int(text)

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} given, valid is a number, 0 or more") from error
