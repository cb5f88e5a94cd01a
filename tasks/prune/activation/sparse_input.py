"""Linears that read a part of their input: the choice, made once for all that share the input, and each product.

With every input kept a linear is the dense one, bit for bit. Otherwise x becomes η + ν (x − η) · keep, where η is what
stands in for a dropped input (0, or what a mitigation says) and ν its stretch (1, or …). Weight and bias are those of
the model itself, under the names they have there, so a sparse model has the state dict of the dense one and more.

Axes: T tokens, I inputs, O outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import linear

from tasks.prune.activation.fused import Fused
from tasks.prune.activation.mitigation import Mitigation, OnInput, OnOutput, Own
from tasks.prune.activation.read import Chosen, Read
from tasks.prune.activation.selection import Selection
from tasks.prune.weight.pattern import Pattern

Prefill = Literal["sparse", "dense"]


class Prepared(nn.ModuleList):
    """The tensors of several methods, in their order: those that learn have parameters, others buffers."""

    def __init__(self, methods: Sequence[Mitigation], tensors: Sequence[dict[str, Tensor]]) -> None:
        super().__init__()
        for method, own in zip(methods, tensors, strict=True):
            holder = nn.Module()
            for name, tensor in own.items():
                if method.learns:
                    holder.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
                else:
                    holder.register_buffer(name, tensor)
            self.append(holder)

    def own(self, index: int) -> Own:
        holder = self[index]
        return dict(holder.named_parameters(recurse=False)) | dict(holder.named_buffers(recurse=False))


class SparseInput(nn.Module):
    """The choice for one input. `readers` linears ask for it, one after the other; it is computed for the first."""

    def __init__(
        self,
        selection: Selection,
        pattern: Pattern,
        facts: dict[str, Tensor],
        mitigations: Sequence[OnInput],
        tensors: Sequence[dict[str, Tensor]],
        readers: int,
        prefill: Prefill = "sparse",
    ) -> None:
        super().__init__()
        self.selection, self.pattern, self.mitigations = selection, pattern, tuple(mitigations)
        self.readers, self.prefill = readers, prefill
        self.facts = nn.Module()
        for name, tensor in facts.items():
            self.facts.register_buffer(name, tensor)
        self.prepared = Prepared(mitigations, tensors)
        self.off = False
        self.tokens: int | None = None  # of each sequence, as the block was given them
        self.fused: Fused | None = None
        self._last: tuple[Tensor, Read] | None = None
        self._asked = 0

    def dense_now(self, x: Tensor) -> bool:
        """Whether x, (…, tokens, I), is to be read whole: a prompt, by choice, or anything while this is off.

        Some models hand all sequences of a batch on in a row, (B · tokens, I); then it counts what the block was given.
        """
        if self.off or self.prefill != "dense" or x.dim() == 1:
            return self.off
        return (x.shape[-2] if x.dim() > 2 or self.tokens is None else self.tokens) > 1

    def forward(self, x: Tensor) -> Read:
        """x (…, I). What is remembered for the other readers is forgotten with the last of them."""
        if self._last is None or self._last[0] is not x:
            self._last, self._asked = (x, self.read(x.reshape(-1, x.shape[-1]))), 0
        read = self._last[1]
        self._asked += 1
        if self._asked == self.readers:
            self._last = None
        return read

    def shift(self, x_TI: Tensor) -> Tensor | None:
        """What stands in for dropped inputs, of the one mitigation that says so: (T, 1) or (I,); None for 0."""
        shifts = (each.shift(x_TI, self.prepared.own(index)) for index, each in enumerate(self.mitigations))
        return next((shift for shift in shifts if shift is not None), None)

    def centred(self, x_TI: Tensor) -> Tensor:
        """What is compared before it is scored: x, less what stands in for dropped inputs."""
        shift = self.shift(x_TI)
        return x_TI if shift is None else x_TI - shift

    def read(self, x_TI: Tensor) -> Read:
        fused = self.fused if self.fused is not None and self.fused.wins(x_TI) else None
        return Read(x_TI, self.choose, None if fused is None else fused.multiply)

    def choose(self, x_TI: Tensor) -> Chosen:
        """Each row depends on that token alone."""
        owned = [(each, self.prepared.own(index)) for index, each in enumerate(self.mitigations)]
        shift = self.shift(x_TI)
        centred_TI = scored_TI = x_TI if shift is None else x_TI - shift
        for each, own in owned:
            if (factor_I := each.rescore(own)) is not None:
                scored_TI = scored_TI.float() * factor_I
        keep_TI = self.selection.keep(scored_TI, self.pattern, dict(self.facts.named_buffers()))
        kept_TI = centred_TI * keep_TI
        for each, _ in owned:
            if (stretch_T1 := each.stretch(centred_TI, kept_TI)) is not None:
                kept_TI = kept_TI * stretch_T1
        return Chosen(keep_TI, kept_TI, shift)


class SparseInputs(nn.ModuleDict):
    """Those of a block, by name. While it is there, a block that runs tells them how many tokens a sequence has."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._hook = block.register_forward_pre_hook(self._see, with_kwargs=True)

    def remove(self) -> None:
        """Leave the block as it was."""
        self._hook.remove()

    def _see(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden_BTD = args[0] if args else kwargs["hidden_states"]
        for source in self.values():
            source.tokens = hidden_BTD.shape[-2]


@contextmanager
def dense(model: nn.Module) -> Iterator[None]:
    """Within, all linears of `model` (or of a block) read whole inputs."""
    sources = [module for module in model.modules() if isinstance(module, SparseInput)]
    try:
        for source in sources:
            source.off = True
        yield
    finally:
        for source in sources:
            source.off = False


class SparseLinear(nn.Linear):
    """`original`, reading what `source` chooses. It has the original's own weight and bias."""

    def __init__(
        self,
        original: nn.Linear,
        source: SparseInput,
        mitigations: Sequence[OnOutput],
        tensors: Sequence[dict[str, Tensor]],
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self.weight, self.bias = original.weight, original.bias
        self.mitigations = tuple(mitigations)
        self.prepared = Prepared(mitigations, tensors)
        self.columns = slice(0, self.out_features)  # of a product of all that share the input
        self._source = (source,)  # in a tuple: several linears share it, and it is registered once, in the block

    @property
    def source(self) -> SparseInput:
        return self._source[0]

    def forward(self, input: Tensor) -> Tensor:
        """x (…, I) to (…, O)."""
        if self.source.dense_now(input):
            return linear(input, self.weight, self.bias)
        read = self.source(input)
        product_TO = read.product_TO
        y_TO = linear(read.chosen.read_TI, self.weight) if product_TO is None else product_TO[:, self.columns]
        for index, each in enumerate(self.mitigations):
            y_TO = each.correct(y_TO, read.x_TI - read.chosen.read_TI, self.prepared.own(index))
        y_TO = y_TO if self.bias is None else y_TO + self.bias
        return y_TO.view(*input.shape[:-1], self.out_features)


def split_mitigations(mitigations: Sequence[Mitigation]) -> tuple[list[OnInput], list[OnOutput]]:
    """Those of the input and those of the output, each in the order given."""
    on_input = [each for each in mitigations if isinstance(each, OnInput)]
    return on_input, [each for each in mitigations if isinstance(each, OnOutput)]


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors of `model` that mitigations learn, by name."""
    return {
        f"{name}.{index}.{own}": parameter
        for name, module in model.named_modules()
        if isinstance(module, Prepared)
        for index, holder in enumerate(module)
        for own, parameter in holder.named_parameters(recurse=False)
    }
