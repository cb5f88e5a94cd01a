"""What the flow `profiles` is told: a model, the cuts between which it is to be switched, two texts."""

import shlex
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from flows.choices import kinds_scored
from flows.methods import USUAL_IMPORTANCE, ImportanceChoice
from flows.texts import OfTexts
from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.importance import BLOCKS
from tasks.prune.structure.named_cuts import UNITS, NamedCut, parse_cuts

BY_INFLUENCE = "influence"  # whole blocks go by it, whatever orders the units

CutsText = Annotated[str, AfterValidator(lambda text: ",".join(map(str, parse_cuts(text))))]


class Profiles(OfTexts):
    """One run of the flow `profiles`."""

    profiles: CutsText | None = Field(None, description="such as heads10,ffn30; by default the usual ones")
    importance: ImportanceChoice = USUAL_IMPORTANCE
    round_to: int = Field(64, ge=1, description="the channels that stay are a multiple of it")
    repair: bool = Field(True, description="fit the linears that read what was cut to what is left, by least squares")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        units = {cut.units for cut in self.cuts()} if self.profiles else {*UNITS.values()}
        if units == {BLOCKS}:
            for name, why in (("importance", "go by their influence"), ("repair", "leave nothing to repair")):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: whole blocks {why}; leave it out")
        if "channels" not in units and self.round_to != type(self).model_fields["round_to"].default:
            raise ValueError("round_to: no profile cuts channels, whose widths it rounds; leave it out")
        unscored = units - {BLOCKS} - {*kinds_scored(self.importance.build())}
        if unscored:
            able = [name for name, kind in IMPORTANCES.items() if units - {BLOCKS} <= {*kinds_scored(kind())}]
            raise ValueError(
                f"importance: {self.importance} gives no scores of {', '.join(sorted(unscored))}; "
                f"valid is {', '.join(able)}"
            )
        if self.repair and units != {BLOCKS} and self.samples < 2:
            raise ValueError("samples: 1 given, but to repair one is needed to fit to and one to hold out")
        return self

    def cuts(self) -> tuple[NamedCut, ...]:
        """Those that were named; none where the model says which."""
        return () if self.profiles is None else parse_cuts(self.profiles)

    @property
    def name(self) -> str:
        """What the rows call it: how units were chosen and what was done for those that stay, `wanda_sp+repair`."""
        return f"{self.importance.label}+repair" if self.repair else self.importance.label

    @property
    def pattern(self) -> str:
        return "profiles"

    def method_of(self, cut: NamedCut) -> str:
        """What the rows of one profile call it: its kind, and by what that is chosen, `heads wanda_sp+repair`."""
        return f"{cut.kind} {BY_INFLUENCE if cut.units == BLOCKS else self.name}"

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "profiles"]
        for name in ("model", "calibration", "evaluation"):
            words += [f"--{name}", str(getattr(self, name))]
        words += self._changed("profiles", "importance")
        words += [] if self.repair else ["--no-repair"]
        words += self._changed("round_to", "samples", "window", "sampling", "seed", "device")
        return shlex.join(words if self.speed else [*words, "--no-speed"])
