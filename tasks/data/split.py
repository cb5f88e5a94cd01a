"""Which module belongs to which part of the built-in text.

A module is named by its path under the folder that holds it, such as `scipy/optimize/_root.py`. Only packages whose
versions constraints.txt pins are held out, so that calibration and evaluation can be read again, byte for byte, on
another machine; the SHA-256 of the name decides, so that the part of a module depends on nothing but its name.
"""

import hashlib

HELD_OUT = {  # package -> the distribution that brings it
    "matplotlib": "matplotlib",
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "sqlalchemy": "SQLAlchemy",
}
EVALUATION_PERMILLE = 25
CALIBRATION_PERMILLE = 60
PARTS = ("train", "calibration", "evaluation")


def part_of(module: str) -> str:
    """The part ("train", "calibration" or "evaluation") of a module path with forward slashes."""
    if module.split("/", 1)[0] not in HELD_OUT:
        return "train"
    draw = int(hashlib.sha256(module.encode()).hexdigest(), 16) % 1000
    if draw < EVALUATION_PERMILLE:
        return "evaluation"
    return "calibration" if draw < EVALUATION_PERMILLE + CALIBRATION_PERMILLE else "train"
