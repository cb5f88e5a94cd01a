"""R-Sparse: two thin factors read what the linear has dropped (Zhang et al., arXiv:2504.19449)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.linalg import svd

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.mitigation import Needs, OnOutput, Own


@dataclass(frozen=True, kw_only=True)
class LowRankRest(OnOutput):
    """y + U V (x − x_kept): at first the largest `rank` singular directions of W, then learned."""

    rank: int = 16
    needs: ClassVar[Needs] = {"left": ("outputs", "rank"), "right": ("rank", "inputs")}
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank: {self.rank} given, valid is 1 or more")

    def check(self, outputs: int, inputs: int) -> None:
        if self.rank * (outputs + inputs) >= outputs * inputs:
            most = (outputs * inputs - 1) // (outputs + inputs)
            raise ValueError(
                f"rank: {self.rank} given for {outputs} x {inputs}, valid is 1 to {most}, less than all of it"
            )

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        self.check(*weight_OI.shape)
        left_OR, size_R, right_RI = svd(weight_OI.float(), full_matrices=False)
        left_OR = left_OR[:, : self.rank] * size_R[: self.rank]
        return {"left": left_OR, "right": right_RI[: self.rank].contiguous()}

    def correct(self, y_TO: Tensor, dropped_TI: Tensor, own: Own) -> Tensor:
        return y_TO + dropped_TI @ own["right"].T.to(y_TO.dtype) @ own["left"].T.to(y_TO.dtype)
