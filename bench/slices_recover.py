"""The recovery that bench.slices gives a cut model: distilled from the dense one on the text it was calibrated on."""

from pathlib import Path

from transformers import PreTrainedModel

from bench.texts import WINDOW, Text
from tasks.data.mixture import Part, mix
from tasks.model.load import load_model
from tasks.recover.distil import Distil
from tasks.recover.recover import recover
from tasks.recover.recovery import Recovery

RATE = 5e-4  # not tuned
BATCH = 16


def recover_cut(model: PreTrainedModel, dense: Path, text: Text, tokens: int, seed: int) -> None:
    """Train all parameters of `model`, in place; windows are shown again where the text is shorter than `tokens`."""
    part = Part(source="calibration", ids_T=text.calibration_T)
    windows = mix([part], window=WINDOW, tokens=tokens, seed=seed, exhausted="repeat")
    model.requires_grad_(True)
    recover(
        model,
        windows,
        Recovery(tokens=tokens, rate=RATE, batch=BATCH, decay=0.4, seed=seed),
        objective=Distil(dense=load_model(dense)),
    )
