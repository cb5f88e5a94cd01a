"""How many heads the attention of a block has, whether or not they are units to be cut."""

from tasks.model.anatomy import Anatomy, attention_of
from tasks.model.units import BlockUnits


def heads_of(anatomy: Anatomy, of_block: BlockUnits, head_dim: int) -> tuple[int, int]:
    """Query and KV heads of a block, 0 without attention.

    Where they are no units, as in fused linears, shapes tell them still: the last linear reads all queries, and the
    others make these, keys and values. Raises ValueError for linears that cannot be understood so.
    """
    if of_block.head_groups:
        groups = of_block.head_groups.count
        return groups * of_block.head_groups.columns_each // head_dim, groups
    name = attention_of(anatomy.blocks[of_block.block])
    linears = [each for key, each in anatomy.linears(of_block.block).items() if name and key.startswith(f"{name}.")]
    if not linears:
        return 0, 0
    *makers, reader = linears
    queries, over = divmod(reader.in_features, head_dim)
    groups, odd = divmod(sum(maker.out_features for maker in makers) - reader.in_features, 2 * head_dim)
    if over or odd or groups < 1 or queries % groups:
        shapes = ", ".join(str(tuple(each.weight.shape)) for each in linears)
        raise ValueError(f"model: the linears {shapes} of {name} in block {of_block.block} do not tell its heads")
    return queries, groups
