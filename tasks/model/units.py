"""What can be removed from a decoder block: head groups, query heads inside them, channels of the FFN; and either part
of it whole, the attention or the FFN.

A unit is a set of weights that only serve each other: rows of the linears that read one input, and the columns of the
one linear that reads what these rows made. Without them the block computes what it does where they are zero. Slicing,
importance, repair and cost all read the one type below.

A family needs no entry here: a part of a block is the linears of one module, and their shapes tell what they are.

Axes: U units that stay, ascending.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.model.anatomy import Anatomy, attention_of, dissect

KINDS = ("head_groups", "query_heads", "channels")
ATTENTION, FFN = PARTS = ("attention", "ffn")


@dataclass(frozen=True, kw_only=True)
class Units:
    """`count` units of one `kind` in a block; unit u has consecutive rows and columns, u * each to (u + 1) * each - 1.

    `rows_each`: the linears that have rows of these units, and how many rows a unit has there (its biases go along).
    `reader`: the linear whose inputs they make, `columns_each` a unit. `parts`: consecutive units come in so many equal
    parts, and the parts must keep equal numbers, as the query heads of all groups must; 1 where nothing binds them.
    """

    kind: str
    count: int
    rows_each: Mapping[str, int]
    reader: str
    columns_each: int
    parts: int = 1

    @property
    def module(self) -> str:
        """The name of the module in the block that holds all these linears; empty if that is the block, as in OPT."""
        return _parent(self.reader)

    def rows_of(self, kept_U: Tensor) -> dict[str, Tensor]:
        """For each linear of `rows_each`, the rows that belong to these units, in order. Raises as `check`."""
        self.check(kept_U)
        return {linear: _spread(kept_U, each) for linear, each in self.rows_each.items()}

    def columns_of(self, kept_U: Tensor) -> Tensor:
        """The columns of `reader` that belong to these units, in order. Raises as `check`."""
        self.check(kept_U)
        return _spread(kept_U, self.columns_each)

    def removed(self, kept_U: Tensor) -> Tensor:
        """The other units, in order; none where all are kept. Raises as `check`."""
        self.check(kept_U)
        stays = torch.zeros(self.count, dtype=torch.bool)
        stays[kept_U.cpu()] = True
        return (~stays).nonzero().flatten()

    def check(self, kept_U: Tensor) -> None:
        """Raises ValueError unless `kept_U` are some of the units: int64, ascending, as many in each of the parts."""
        if kept_U.dim() != 1 or kept_U.dtype != torch.int64 or len(kept_U) == 0:
            given = f"{kept_U.dtype} of shape {tuple(kept_U.shape)}"
            raise ValueError(f"{self.kind}: {given} given, valid is a row of one or more int64 indices")
        if kept_U[0] < 0 or kept_U[-1] >= self.count or not (kept_U.diff() > 0).all():
            given = _shown(kept_U)
            raise ValueError(
                f"{self.kind}: {given} given, valid are ascending, different indices 0 to {self.count - 1}"
            )
        if self.parts > 1:
            kept_of_part = (kept_U // (self.count // self.parts)).bincount(minlength=self.parts)
            if not (kept_of_part == kept_of_part[0]).all():
                given = ", ".join(str(number) for number in kept_of_part.tolist())
                raise ValueError(f"{self.kind}: {given} kept in its {self.parts} groups, valid is one number in all")


@dataclass(frozen=True, kw_only=True)
class BlockUnits:
    """What block `block` has: None for a kind of which it has none.

    `head_groups`: a KV head with the query heads that read it. `query_heads`: single ones, where a group has several.
    `parts`: those of PARTS that it has, each with the linear whose outputs are all that the part adds.
    """

    block: int
    family: str
    head_groups: Units | None
    query_heads: Units | None
    channels: Units | None
    parts: Mapping[str, str]

    @property
    def kinds(self) -> dict[str, Units]:
        """The units that the block has, by kind."""
        every = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: units for kind, units in every.items() if units is not None}

    def of(self, kind: str) -> Units:
        """The units of one kind. Raises ValueError, saying which the block has, where it has none of these."""
        if kind not in self.kinds:
            valid = ", ".join([*self.kinds, *self.parts, "the block as a whole"])
            raise ValueError(f"units: {kind} given, block {self.block} of this {self.family} has {valid}")
        return self.kinds[kind]


def units_of(model: PreTrainedModel) -> list[BlockUnits]:
    """The units of every block of `model`, which may have been cut before; one forward of a few tokens.

    Raises ValueError for a model whose blocks are not made of linears that each run once (tasks.model.anatomy).
    """
    return units_in(dissect(model), model.config)


def units_in(anatomy: Anatomy, config: PreTrainedConfig) -> list[BlockUnits]:
    """As `units_of`, of a model that has been dissected. Shapes tell the counts, `config` only the width of a head."""
    return [_block_units(anatomy, config, index) for index in range(len(anatomy.blocks))]


def head_dim_of(config: PreTrainedConfig) -> int:
    """The width of one head, which families that do not state it derive from the width of the model."""
    text = config.get_text_config()
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


@dataclass(frozen=True)
class _Part:
    """The linears of one module of a block: those that read its input, and the one that reads what these made."""

    makers: dict[str, nn.Linear]
    reader_name: str
    reader: nn.Linear
    others: list[int]  # sizes of the parameters that belong to none of these linears

    @property
    def rows(self) -> list[int]:
        return [maker.out_features for maker in self.makers.values()]


def _block_units(anatomy: Anatomy, config: PreTrainedConfig, index: int) -> BlockUnits:
    head_groups = query_heads = channels = None
    for part in _parts(anatomy, index):
        if _is_attention(part, head_dim_of(config)):
            head_groups, query_heads = _heads(part, head_dim_of(config))
        elif _is_ffn(part):
            channels = _channels(part)
    return BlockUnits(
        block=index,
        family=config.model_type,
        head_groups=head_groups,
        query_heads=query_heads,
        channels=channels,
        parts=_whole_parts(anatomy, index, channels),
    )


def _whole_parts(anatomy: Anatomy, index: int, channels: Units | None) -> dict[str, str]:
    """By name: the last linear of the attention, whose heads need be no units, and the reader of the channels."""
    attention = attention_of(anatomy.blocks[index])
    within = [name for name in anatomy.linears(index) if attention and name.startswith(f"{attention}.")]
    parts = {ATTENTION: within[-1]} if within else {}
    return parts if channels is None else parts | {FFN: channels.reader}


def _parts(anatomy: Anatomy, index: int) -> list[_Part]:
    """The modules of a block whose linears run in two steps, the second of them a single linear."""
    steps: dict[str, list[list[str]]] = {}
    for group in anatomy.shared_inputs[index]:
        for parent in dict.fromkeys(_parent(name) for name in group):
            steps.setdefault(parent, []).append([name for name in group if _parent(name) == parent])
    linears, parts = anatomy.linears(index), []
    for parent, groups in steps.items():
        if len(groups) != 2 or len(groups[1]) != 1:
            continue
        makers, (reader,) = groups
        others = _other_sizes(anatomy.blocks[index].get_submodule(parent)) if parent else []
        parts.append(_Part({name: linears[name] for name in makers}, reader, linears[reader], others))
    return parts


def _is_attention(part: _Part, head_dim: int) -> bool:
    """q, k and v, and o that reads as many heads as q makes; a norm may run over one head, not over all of them."""
    if len(part.makers) != 3 or any(rows % head_dim for rows in part.rows):
        return False
    fewest, middle, most = sorted(part.rows)
    fits = fewest == middle and most % fewest == 0 and part.reader.in_features == most
    return fits and all(size == head_dim for size in part.others)


def _is_ffn(part: _Part) -> bool:
    """One linear, or two whose outputs are multiplied, and one that reads these; no norm runs over the channels."""
    return len(part.makers) <= 2 and set(part.rows) == {part.reader.in_features} and not part.others


def _heads(part: _Part, head_dim: int) -> tuple[Units, Units | None]:
    """Query heads k*r to k*r + r-1 read KV head k: with q's rows in order, a group is consecutive everywhere."""
    groups, queries = min(part.rows) // head_dim, max(part.rows) // head_dim
    head_groups = Units(
        kind="head_groups",
        count=groups,
        rows_each={name: maker.out_features // groups for name, maker in part.makers.items()},
        reader=part.reader_name,
        columns_each=part.reader.in_features // groups,
    )
    if queries == groups:
        return head_groups, None
    query = max(part.makers, key=lambda name: part.makers[name].out_features)
    query_heads = Units(
        kind="query_heads",
        count=queries,
        rows_each={query: head_dim},
        reader=part.reader_name,
        columns_each=head_dim,
        parts=groups,
    )
    return head_groups, query_heads


def _channels(part: _Part) -> Units:
    return Units(
        kind="channels",
        count=part.reader.in_features,
        rows_each=dict.fromkeys(part.makers, 1),
        reader=part.reader_name,
        columns_each=1,
    )


def _other_sizes(module: nn.Module) -> list[int]:
    within = [each for each in module.modules() if not isinstance(each, nn.Linear)]
    return [parameter.numel() for each in within for parameter in each.parameters(recurse=False)]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _spread(kept_U: Tensor, each: int) -> Tensor:
    """The indices of rows or columns, `each` for every unit."""
    return (kept_U[:, None] * each + torch.arange(each, device=kept_U.device)).flatten()


def _shown(kept_U: Tensor) -> str:
    more = ", …" if len(kept_U) > 8 else ""
    return f"[{', '.join(str(index) for index in kept_U[:8].tolist())}{more}]"
