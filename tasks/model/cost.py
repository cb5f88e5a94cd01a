"""What a model costs, exactly, for any widths of its blocks: parameters, multiplications, bytes of weights and cache.

Formulas, of a block with n_q query heads, n_kv KV heads, m channels, heads of h, a model of width d, a gated FFN:
MACs a token 2·d·h·(n_q + n_kv) + 3·d·m, and n_q·h·2 for each key that it attends to; cache 2·n_kv·h numbers a token.
Norms, activations, softmax and rotary embeddings are counted with their parameters, not with their operations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.model.anatomy import Anatomy, attention_of, dissect, linears_of
from tasks.model.heads import heads_of
from tasks.model.units import BlockUnits, head_dim_of, units_in


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a model or a part of it, at a context of `tokens` and for a batch of sequences.

    `prefill_macs`: multiply-adds for all tokens of the batch, each attending to itself and those before it.
    `decode_macs`: for one more token of each sequence, the last of the context. `kv_bytes`: a cache that saw `tokens`.
    """

    parameters: int
    prefill_macs: int
    decode_macs: int
    weight_bytes: int
    kv_bytes: int

    @property
    def prefill_flops(self) -> int:
        return 2 * self.prefill_macs

    @property
    def decode_flops(self) -> int:
        return 2 * self.decode_macs

    def __add__(self, other: Self) -> Self:
        return type(self)(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def __sub__(self, other: Self) -> Self:
        return type(self)(**{each.name: getattr(self, each.name) - getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What a block has; no heads where its attention, no channels where its FFN was removed or has no such units.

    Heads count in fused linears, too, where they are no units. `window`: how many keys a token attends to at most,
    itself included; None for all of the context.
    """

    query_heads: int
    kv_heads: int
    channels: int
    window: int | None = None

    def __post_init__(self) -> None:
        if min(self.query_heads, self.kv_heads, self.channels) < 0:
            raise ValueError(f"widths: {self} given, valid is 0 or more of each")
        if (self.query_heads == 0) != (self.kv_heads == 0) or (self.kv_heads and self.query_heads % self.kv_heads):
            given = f"{self.query_heads} query heads for {self.kv_heads} KV heads"
            raise ValueError(f"widths: {given} given, valid is the same whole number for each KV head")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Parameters of a block that go together: `weights` of linears, each one MAC a token, and `biases` or norms."""

    weights: int = 0
    biases: int = 0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The sizes of a model that stay when units are cut out of its blocks. Everything is in numbers but `itemsize`.

    Of units that a family does not have each costs nothing: the linears go with the whole attention, or the block.
    """

    head_dim: int
    query_head: Part
    kv_head: Part
    channel: Part
    attention: Part  # goes only with the whole attention: the bias of o, norms over a head; all of it where it is fused
    ffn: Part  # and with the whole FFN: the bias of down
    block: Part  # and with the whole block: its norms, and linears of no units
    outside: int  # parameters outside the blocks, what is tied counted once
    outside_macs: int  # of the linears outside the blocks, a token
    itemsize: int  # bytes of a parameter and of a number in the cache

    def cost(self, blocks: Iterable[Widths], *, tokens: int, batch: int = 1) -> Cost:
        """The whole model with blocks of these widths. Raises as `block_cost`."""
        total = self.outside_cost(tokens=tokens, batch=batch)
        for widths in blocks:
            total += self.block_cost(widths, tokens=tokens, batch=batch)
        return total

    def block_cost(self, widths: Widths, *, tokens: int, batch: int = 1) -> Cost:
        """One block. Raises ValueError for a context or a batch below 1."""
        _check_sizes(tokens, batch)
        parts = (
            (widths.query_heads, self.query_head),
            (widths.kv_heads, self.kv_head),
            (widths.channels, self.channel),
            (bool(widths.kv_heads), self.attention),
            (bool(widths.channels), self.ffn),
            (1, self.block),
        )
        weights = sum(count * part.weights for count, part in parts)
        parameters = weights + sum(count * part.biases for count, part in parts)
        window = min(tokens, widths.window or tokens)
        attended = window * (window + 1) // 2 + (tokens - window) * window  # keys, over all tokens of a sequence
        cached = min(tokens, widths.window - 1) if widths.window else tokens
        macs_per_key = 2 * widths.query_heads * self.head_dim
        return Cost(
            parameters=parameters,
            prefill_macs=batch * (tokens * weights + attended * macs_per_key),
            decode_macs=batch * (weights + window * macs_per_key),
            weight_bytes=parameters * self.itemsize,
            kv_bytes=2 * widths.kv_heads * self.head_dim * cached * batch * self.itemsize,
        )

    def outside_cost(self, *, tokens: int, batch: int = 1) -> Cost:
        """Embeddings, the last norm and the head, which gives logits for every token. Raises as `block_cost`."""
        _check_sizes(tokens, batch)
        return Cost(
            parameters=self.outside,
            prefill_macs=batch * tokens * self.outside_macs,
            decode_macs=batch * self.outside_macs,
            weight_bytes=self.outside * self.itemsize,
            kv_bytes=0,
        )


def sizes_of(model: PreTrainedModel) -> tuple[Frame, list[Widths]]:
    """The frame of `model` and the widths of its blocks; it may have been cut before. One forward of a few tokens.

    Raises ValueError as `heads_of`, for blocks that differ in more than widths, and for parameters of several dtypes.
    """
    anatomy = dissect(model)
    units = units_in(anatomy, model.config)
    widths = [_widths(anatomy, of_block, model.config) for of_block in units]
    frame = _frame(model, anatomy, units, widths)
    for index, (block, of_block) in enumerate(zip(anatomy.blocks, widths, strict=True)):
        counted, held = frame.block_cost(of_block, tokens=1).parameters, _count(block)
        if counted != held:
            raise ValueError(f"model: block {index} has {held} parameters, its units and norms would be {counted}")
    return frame, widths


def _frame(model: PreTrainedModel, anatomy: Anatomy, units: Sequence[BlockUnits], widths: Sequence[Widths]) -> Frame:
    """Read off a block with attention, and one with channels: where a cut removed either from some, others have it."""
    attentive = next((index for index, each in enumerate(widths) if each.kv_heads), 0)
    fed = next((index for index, each in enumerate(widths) if each.channels), attentive)
    query_head, kv_head = _head_parts(anatomy, units[attentive])
    channel, ffn = _ffn_parts(anatomy, units[fed])
    block, has = anatomy.blocks[attentive], widths[attentive]
    heads = ((has.query_heads, query_head), (has.kv_heads, kv_head))
    attention = _rest(block.get_submodule(attention_of(block)), *heads) if has.kv_heads else Part()
    return Frame(
        head_dim=head_dim_of(model.config),
        query_head=query_head,
        kv_head=kv_head,
        channel=channel,
        attention=attention,
        ffn=ffn,
        block=_rest(block, *heads, (1, attention), (has.channels, channel), (bool(has.channels), ffn)),
        outside=_count(model) - sum(_count(each) for each in anatomy.blocks),
        outside_macs=_count_weights(model) - sum(_count_weights(each) for each in anatomy.blocks),
        itemsize=_itemsize(model),
    )


def _head_parts(anatomy: Anatomy, of_block: BlockUnits) -> tuple[Part, Part]:
    """Of a query head and of a KV head; nothing where they are no units."""
    groups = of_block.head_groups
    if groups is None:
        return Part(), Part()
    linears, head_dim = anatomy.linears(of_block.block), min(groups.rows_each.values())
    query = max(groups.rows_each, key=lambda name: groups.rows_each[name])
    key_and_value = [linears[name] for name in groups.rows_each if name != query]
    return _part([linears[query]], linears[groups.reader], head_dim), _part(key_and_value, None, head_dim)


def _ffn_parts(anatomy: Anatomy, of_block: BlockUnits) -> tuple[Part, Part]:
    """Of a channel, and what goes with the last; nothing where they are no units."""
    channels, linears = of_block.channels, anatomy.linears(of_block.block)
    if channels is None:
        return Part(), Part()
    reader = linears[channels.reader]
    bias = 0 if reader.bias is None else reader.bias.numel()
    return _part([linears[name] for name in channels.rows_each], reader, 1), Part(biases=bias)


def _part(makers: Sequence[nn.Linear], reader: nn.Linear | None, each: int) -> Part:
    """`each` rows of the makers, and as many columns of the reader."""
    rows = sum(maker.in_features for maker in makers)
    columns = reader.out_features if reader is not None else 0
    biases = sum(maker.bias is not None for maker in makers)
    return Part(weights=each * (rows + columns), biases=each * biases)


def _rest(module: nn.Module, *counted: tuple[int, Part]) -> Part:
    """What a module has beside so many of these parts."""
    weights, every = _count_weights(module), _count(module)
    return Part(
        weights=weights - sum(count * part.weights for count, part in counted),
        biases=every - weights - sum(count * part.biases for count, part in counted),
    )


def _widths(anatomy: Anatomy, of_block: BlockUnits, config: PreTrainedConfig) -> Widths:
    queries, groups = heads_of(anatomy, of_block, head_dim_of(config))
    channels = of_block.channels.count if of_block.channels else 0
    window = _window(config.get_text_config(), of_block.block)
    return Widths(query_heads=queries, kv_heads=groups, channels=channels, window=window)


def _window(config: PreTrainedConfig, block: int) -> int | None:
    """Of a block, as the caches of transformers read it from the configuration."""
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or kinds[block] == "sliding_attention"
    return getattr(config, "sliding_window", None) if slides else None


def _itemsize(model: nn.Module) -> int:
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise ValueError(f"model: {', '.join(sorted(map(str, dtypes)))} among its parameters, valid is one dtype")
    return dtypes.pop().itemsize


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count_weights(module: nn.Module) -> int:
    """Of its linears, without biases; what is tied counts as often as it multiplies."""
    return sum(linear.weight.numel() for linear in linears_of(module).values())


def _check_sizes(tokens: int, batch: int) -> None:
    for field, given in {"tokens": tokens, "batch": batch}.items():
        if given < 1:
            raise ValueError(f"{field}: {given} given, valid is 1 or more")
