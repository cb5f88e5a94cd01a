"""The words of `espalier activation`, and its screen of help."""

import argparse

from flows import names
from flows.words import say_model, say_modules, say_texts


def say_activation(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--selection",
        required=True,
        type=names.one_of(*names.SELECTIONS),
        help="which inputs a linear reads of each token: topk, threshold, clact, amber, weight_variance (a share), or "
        "nm (n of each m); clact, amber and weight_variance take both",
    )
    made.add_argument(
        "--pattern",
        required=True,
        type=names.pattern(names.INPUT_PATTERNS),
        help="50%% of a token's inputs go; 8:16 (any n:m): n of m stay",
    )
    made.add_argument(
        "--mitigation",
        default="none",
        type=names.mitigations,
        help="what makes up for the others: var, dpts, spts, lpts, ls, scaling, rsparse, or several: "
        "var+dpts,centre=median; spts, lpts, ls and rsparse learn",
    )
    say_modules(made)
    made.add_argument(
        "--allocation", default="uniform", help="how the share is divided by the blocks: uniform, owl or a JSON file"
    )
    made.add_argument(
        "--greedy",
        metavar="STEP",
        type=names.number(above=0, most=1),
        help="divide a block's share among its inputs by such steps, as TEAL does: 0.05",
    )
    made.add_argument(
        "--learn", nargs="?", const="", help="how what learns is trained on the calibration text: rate=0.001,epochs=10"
    )
    made.add_argument(
        "--prefill",
        type=names.one_of("sparse", "dense"),
        default="sparse",
        help="sparse or dense: how a prompt is timed; the score is of sparse tokens",
    )
    say_texts(made)
