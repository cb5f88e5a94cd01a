"""A cut model as a folder of transformers that loads where this project is not. Three forms:

uniform     one width in all blocks: the stock class, as small as the cut model
padded      blocks filled up with zeros to the widest: the stock class, exact, as large as its widest block says
per_layer   each block with its own widths: as small as the cut model, with a modeling file in the folder
"""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from tasks.model.load import save_model
from tasks.prune.structure.outline import Outline, Plan, outline_of
from tasks.prune.structure.padded import padded
from tasks.prune.structure.per_layer import per_layer
from tasks.prune.structure.uniform import uniform

FORMS: dict[str, Callable[[Outline], Plan]] = {"uniform": uniform, "padded": padded, "per_layer": per_layer}


def export_model(model: PreTrainedModel, form: str, tokenizer_source: Path, folder: Path) -> None:
    """Write `model`, cut by slices, in a `form` of FORMS into `folder`, with the tokenizer of `tokenizer_source`.

    The model is left as it is; what a form does not pad is not copied in memory.

    Raises ValueError, before anything is written, for a form that is none or cannot express this model; the message
    says which can.
    """
    if form not in FORMS:
        raise ValueError(f"form: {form} given, valid is {', '.join(FORMS)}")
    outline = outline_of(model)
    try:
        plan = FORMS[form](outline)
    except ValueError as error:
        others = ", ".join(name for name in FORMS if name not in _refusals(outline)) or "none"
        raise ValueError(
            f"form: {form} cannot express this {model.config.model_type}: {error}; valid is {others}"
        ) from error
    plan.target.load_state_dict(plan.tensors(), assign=True)
    plan.target.tie_weights()
    plan.target.generation_config = model.generation_config
    save_model(plan.target, tokenizer_source, folder)
    for name, text in plan.files.items():
        (folder / name).write_text(text, encoding="utf-8")


def forms_of(model: PreTrainedModel) -> list[str]:
    """The forms that can express `model`, cut or not. Raises ValueError as `outline_of`."""
    refusals = refusals_of(model)
    return [form for form in FORMS if form not in refusals]


def refusals_of(model: PreTrainedModel) -> dict[str, str]:
    """The forms that cannot express `model`, cut or not, and why. Raises ValueError as `outline_of`."""
    return _refusals(outline_of(model))


def _refusals(outline: Outline) -> dict[str, str]:
    refusals = {}
    for form, plan in FORMS.items():
        try:
            plan(outline)
        except ValueError as error:
            refusals[form] = str(error)
    return refusals
