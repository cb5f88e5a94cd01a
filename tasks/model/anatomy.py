"""Where the decoder blocks of a model are, which linears they hold, and which of those read the same input.

Nothing is known by name: the blocks are the longest list of like modules that hold matrices, and the rest is seen by
watching one forward of a few tokens. So a new family needs no entry anywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

TRIAL_TOKENS = 4


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """`blocks` in the order they run; `shared_inputs[b]`: the linears of block b, those that read one input together.

    The groups, and the linears within a group, stand in the order they run: (q, k, v), (o), (gate, up), (down) for
    Llama. A linear's name is relative to its block (`self_attn.q_proj`), `name` is that of the list (`model.layers`).
    `returns_tuple`: a block gives (hidden states, …), as Falcon's do, instead of hidden states.
    """

    name: str
    blocks: tuple[nn.Module, ...]
    shared_inputs: tuple[tuple[tuple[str, ...], ...], ...]
    returns_tuple: bool

    def linears(self, block: int) -> dict[str, nn.Linear]:
        """The linears of a block by name, in the order of `shared_inputs`."""
        every = linears_of(self.blocks[block])
        return {name: every[name] for group in self.shared_inputs[block] for name in group}

    def qualified(self, block: int, linear: str) -> str:
        """The name of a linear in the whole model, such as `model.layers.0.self_attn.q_proj`."""
        return f"{self.name}.{block}.{linear}"


def dissect(model: PreTrainedModel) -> Anatomy:
    """Find the blocks, and watch a forward of a few tokens to see what their linears read.

    Raises ValueError where a block holds a matrix outside nn.Linear (GPT-2's Conv1D, fused experts), the blocks do not
    run one after the other, or a linear does not run exactly once (experts of a mixture).
    """
    name, blocks = find_blocks(model)
    _refuse_other_matrices(model, blocks)
    numbered = {str(index): block for index, block in enumerate(blocks)}
    linears = {f"{index}.{linear}": each for index in numbered for linear, each in linears_of(numbered[index]).items()}
    order: list[str] = []
    readings: list[_Reading] = []
    outputs: list[object] = []
    watch_output = blocks[0].register_forward_hook(lambda _, inputs, output: outputs.append(output))
    try:
        with (
            torch.no_grad(),
            before_each(numbered, lambda index, _: order.append(index)),
            before_each(linears, lambda linear, x: _note(readings, linear, x)),
        ):
            model.base_model(torch.zeros(1, TRIAL_TOKENS, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        watch_output.remove()
    if order != list(numbered):
        raise ValueError(f"model: the blocks of {name} ran as {', '.join(order)}, not one after the other")
    ran = [linear for reading in readings for linear in reading.linears]
    for linear in linears:
        if ran.count(linear) != 1:
            raise ValueError(f"model: {name}.{linear} ran {ran.count(linear)} times in one forward; once is supported")
    return Anatomy(
        name=name,
        blocks=tuple(blocks),
        shared_inputs=tuple(_by_block(readings, len(blocks))),
        returns_tuple=isinstance(outputs[0], tuple),
    )


def prunable(config: PreTrainedConfig) -> dict[str, nn.Linear]:
    """Every linear that pruning will touch, by its qualified name, without the weights (on the device "meta").

    Raises ValueError for a family whose blocks hold matrices outside nn.Linear.
    """
    name, blocks = blocks_without_weights(config)
    return {f"{name}.{linear}": module for linear, module in linears_of(blocks).items()}


def prunable_blocks(config: PreTrainedConfig) -> list[dict[str, nn.Linear]]:
    """As `prunable`, block by block, each linear by its name in its block."""
    _, blocks = blocks_without_weights(config)
    return [linears_of(block) for block in blocks]


def blocks_without_weights(config: PreTrainedConfig) -> tuple[str, nn.ModuleList]:
    """The blocks of such a model on the device "meta", and the name of their list. Raises as `prunable`."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    name, blocks = find_blocks(model)
    _refuse_other_matrices(model, blocks)
    return name, blocks


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The longest list of modules of one class that hold matrices, and its name; lists inside a block do not count."""
    found: dict[str, nn.ModuleList] = {}
    base = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is base)
    for name, module in base.named_modules(prefix=prefix):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and not inside and _alike(module):
            found[name] = module
    if not found:
        raise ValueError(f"model: no list of decoder blocks in {type(model).__name__}")
    return max(found.items(), key=lambda item: len(item[1]))


def linears_of(block: nn.Module) -> dict[str, nn.Linear]:
    """Every nn.Linear of a block by its name in the block, in the order of registration."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def attention_of(block: nn.Module) -> str:
    """The name of the module that writes into the cache, and so knows its slot (some blocks know it, too); or ""."""
    return next((name for name, module in block.named_modules() if name and hasattr(module, "layer_idx")), "")


@contextmanager
def before_each(modules: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within, call `see(name, x)` whenever one of `modules` is about to run on x."""

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: see(name, inputs[0])

    handles = [module.register_forward_pre_hook(hook_for(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Reading:
    """An input and the linears that read it. `x` is kept alive, so that its memory is not given to another input."""

    x: Tensor
    values: Tensor
    linears: list[str]

    def is_of(self, x: Tensor) -> bool:
        """Same memory, and not overwritten in between."""
        return x.data_ptr() == self.x.data_ptr() and x.shape == self.x.shape and torch.equal(x, self.values)


def _note(readings: list[_Reading], linear: str, x: Tensor) -> None:
    for reading in readings:
        if reading.is_of(x):
            reading.linears.append(linear)
            return
    readings.append(_Reading(x, x.clone(), [linear]))


def _by_block(readings: list[_Reading], blocks: int) -> list[tuple[tuple[str, ...], ...]]:
    groups: list[list[tuple[str, ...]]] = [[] for _ in range(blocks)]
    for reading in readings:
        split = [linear.split(".", 1) for linear in reading.linears]
        groups[int(split[0][0])].append(tuple(name for _, name in split))
    return [tuple(group) for group in groups]


def _alike(modules: nn.ModuleList) -> bool:
    """One class, and matrices inside."""
    one_class = len({type(module) for module in modules}) == 1
    return one_class and any(parameter.dim() >= 2 for parameter in modules.parameters())


def _refuse_other_matrices(model: PreTrainedModel, blocks: nn.ModuleList) -> None:
    for name, module in blocks.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() >= 2 and not isinstance(module, nn.Linear):
                raise ValueError(
                    f"model: {type(model).__name__} keeps {name}.{parameter_name} {tuple(parameter.shape)} in a "
                    f"{type(module).__name__}; only families whose blocks are made of nn.Linear can be pruned"
                )
