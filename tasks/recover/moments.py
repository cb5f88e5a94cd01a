"""What AdamW remembers of a training, handed from one span of it to the next, between which the model may be cut.

In a safetensors file as `<parameter>/<field>`: `exp_avg` and `exp_avg_sq` in the shape of the parameter, `step` a
number. What lies at the same place as a weight goes with it (tasks.prune.structure.along).
"""

from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tasks.recover.state import placed, trained_in

FILE = "moments.safetensors"


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The moments in `folder/moments.safetensors`."""

    hash: str
    folder: str


def moments_in(state: Path) -> dict[str, Tensor]:
    """Those of a state that `recover` has written."""
    with safe_open(state, "pt") as stored:
        keys = [key for key in stored.keys() if key.startswith("adamw/")]  # noqa: SIM118 (not a dict)
        return {key.removeprefix("adamw/"): stored.get_tensor(key) for key in keys}


def begin_with(moments: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Let the optimizer of the parameters that `model` trains remember `moments`.

    Raises ValueError for moments of a parameter that is not trained here, or that has another shape.
    """
    parameters = trained_in(model)
    for key, tensor in load_file(moments).items():
        name, _, field = key.partition("/")
        if name not in parameters:
            raise ValueError(f"moments: those of {name} given, which this model does not train")
        if tensor.dim() and tensor.shape != parameters[name].shape:
            given, valid = tuple(tensor.shape), tuple(parameters[name].shape)
            raise ValueError(f"moments: {given} given for {name}, valid is {valid}")
        optimizer.state[parameters[name]][field] = placed(tensor, parameters[name])


def digest_of(moments: Path) -> str:
    """SHA-256 of the file."""
    with moments.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
