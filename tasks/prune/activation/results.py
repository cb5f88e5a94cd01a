"""What the stages of this room are told and hand on."""

from dataclasses import dataclass

from tasks.handles import EvaluationRow, SpeedRow
from tasks.prune.activation.mitigation import Mitigation
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.rows import LearnedRow, ProductRow, SparseInputRow
from tasks.prune.activation.selection import Selection


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A recipe, and the names of its methods in the registries: of the selection, then of each mitigation.

    A stage that took the registries instead would be computed again after an edit of any method.
    """

    recipe: ActivationRecipe
    names: tuple[str, ...]

    @property
    def methods(self) -> dict[str, type[Selection] | type[Mitigation]]:
        made: tuple[Selection | Mitigation, ...] = (self.recipe.selection, *self.recipe.mitigations)
        return {name: type(method) for name, method in zip(self.names, made, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Sparsified:
    """What makes a model read sparse inputs, in `folder` (tasks.prune.activation.folder), and what was learned."""

    hash: str
    folder: str
    size_bytes: int
    learned: tuple[LearnedRow, ...]


@dataclass(frozen=True, kw_only=True)
class SparseEvaluation:
    """The score of a model with sparse inputs, and what each of its inputs really passed on meanwhile."""

    evaluation: EvaluationRow
    inputs: tuple[SparseInputRow, ...]


@dataclass(frozen=True, kw_only=True)
class SparseTiming:
    """The speed of a model with sparse inputs beside the dense one, and which products it ran on."""

    speeds: tuple[SpeedRow, ...]
    products: tuple[ProductRow, ...]
