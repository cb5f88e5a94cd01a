"""What every flow over texts is told: the model, what calibrates and scores it, and where it runs."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from flows.device import VALID
from flows.methods import Strict, one_line
from tasks.data.sources import parse_source


def _device(text: str) -> str:
    if not VALID.fullmatch(text):
        raise ValueError(f"device: {text!r} given, valid is auto, cpu, cuda or cuda:1")
    return text


DeviceText = Annotated[str, AfterValidator(_device)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # what every generator takes, NumPy's old one too
SourceText = Annotated[str, AfterValidator(lambda text: str(parse_source(text)))]


class Told(Strict):
    """Parameters that can be said as the words of a command line."""

    def _changed(self, *names: str) -> list[str]:
        """The words of these fields, where they are not what they are by default."""
        changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        return [word for name in changed for word in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]

    @classmethod
    def parse(cls, **words: Any) -> Self:
        """From the words of a command line; ValueError is one line with the field and what is valid."""
        try:
            return cls(**words)
        except ValidationError as error:
            raise ValueError(one_line(error)) from error


class OfTexts(Told):
    """What every flow that calibrates a model and scores what becomes of it is told of the model and the texts."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    calibration: SourceText = "docs"
    evaluation: SourceText = "docs"
    samples: int = Field(128, ge=1, description="calibration windows")
    window: int | None = Field(
        None, ge=2, description="tokens a window; by default 2048, or the model's context if shorter"
    )
    sampling: Literal["random", "first"] = "random"
    seed: Seed = 0
    device: DeviceText = "auto"
    speed: bool = Field(True, description="measure prefill and decode speed beside the dense model")

    @model_validator(mode="after")
    def _a_seed_draws_something(self) -> Self:
        if self.sampling == "first" and self.seed:
            raise ValueError("seed: sampling takes the first windows, so no seed is drawn from; leave it out")
        return self
