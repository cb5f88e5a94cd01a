"""A model that is not in memory: each parameter is a view of its safetensors file, of which the pages in use are read.

Who is done with some parameters says so, by `release`: their pages are dropped, and read again when they are next used.
So a model larger than memory runs whole forwards, with one block of it in memory at a time. A view is never changed:
`own` first makes it an ordinary tensor, and `remap` a view again, of the file where the changed values were written.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks
from tasks.model.folder import tensor_names, weight_shards
from tasks.model.load import model_from


class Mapped(nn.Parameter):
    """A parameter whose values lie in `file` under the name `stored_as`, for as long as it is a view of it."""

    file = Path()
    stored_as = ""
    address: int | None = None  # of the view; None: values of its own

    @property
    def is_view(self) -> bool:
        """Not once it has values of its own, nor while it is on another device."""
        return self.address is not None and self.data_ptr() == self.address


@contextmanager
def mapped_model(folder: Path) -> Iterator[PreTrainedModel]:
    """As `load_model` on the CPU, but no weight is read. Within, each block is released after each of its forwards.

    A tensor that has to be converted on the way in, where config.json names another dtype, is in memory all the same.
    """
    model = _open(folder)
    blocks = find_blocks(model)[1]
    for block in blocks:  # each on its own: pages are dropped with the last view of a mapping
        _map(_mapped_of(block))
    for parameter in _mapped_of(model):
        if not parameter.is_view:
            _map([parameter])
    hooks = [block.register_forward_hook(lambda block, *_: release(block.parameters())) for block in blocks]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def release(parameters: Iterable[nn.Parameter]) -> None:
    """Drop the pages of those that are views; give all parameters of a block at once. Others stay as they are."""
    _map(parameter for parameter in parameters if isinstance(parameter, Mapped) and parameter.is_view)


def own(parameters: Iterable[nn.Parameter]) -> None:
    """Give those that are views values of their own, in memory, which may be changed and are not released."""
    for parameter in parameters:
        if isinstance(parameter, Mapped):
            if parameter.is_view:
                parameter.data = parameter.data.clone()
            parameter.address = None


def remap(module: nn.Module, prefix: str, file: Path) -> None:
    """Make the parameters of `module` views of `file`, where their names stand behind `prefix`."""
    for name, parameter in module.named_parameters():
        if isinstance(parameter, Mapped):
            parameter.file, parameter.stored_as = file, prefix + name
    _map(_mapped_of(module))


def _open(folder: Path) -> PreTrainedModel:
    """The model, made of views that share a mapping; what came through `model_from` as it was is `Mapped`."""
    file_of = {name: shard for shard in weight_shards(folder) for name in tensor_names(shard)}
    views: dict[str, Tensor] = {}
    for shard in set(file_of.values()):
        with safe_open(shard, framework="pt") as stored:
            views |= {name: stored.get_tensor(name) for name in tensor_names(shard)}
    name_at = {tensor.data_ptr(): name for name, tensor in views.items()}
    model = model_from(views, folder)
    mapped: dict[str, Mapped] = {}  # by name, so that what is tied stays tied
    for module in model.modules():
        for attribute, parameter in list(module.named_parameters(recurse=False)):
            name = name_at.get(parameter.data_ptr())
            if name is not None and name not in mapped:
                mapped[name] = Mapped(parameter.data, parameter.requires_grad)
                mapped[name].file, mapped[name].stored_as = file_of[name], name
            if name is not None:
                setattr(module, attribute, mapped[name])
    return model


def _mapped_of(module: nn.Module) -> list[Mapped]:
    return [parameter for parameter in module.parameters() if isinstance(parameter, Mapped)]


def _map(parameters: Iterable[Mapped]) -> None:
    """Open the files anew, each once, and make these parameters views of them."""
    by_file = defaultdict(list)
    for parameter in parameters:
        by_file[parameter.file].append(parameter)
    for file, group in by_file.items():
        with safe_open(file, framework="pt") as stored:
            for parameter in group:
                parameter.data = stored.get_tensor(parameter.stored_as)
                parameter.address = parameter.data_ptr()
