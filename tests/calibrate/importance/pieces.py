"""What a unit consists of, said a second time and by name, so that a mistake in tasks.model.units shows."""

import torch

HEAD_DIM = 8


def attention_and_ffn(block):
    """(q, k, v), o, the linears before the activation, and the one behind it."""
    attention = block.self_attn
    o = attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj
    makers = (block.mlp.gate_proj, block.mlp.up_proj) if hasattr(block, "mlp") else (block.fc1,)
    down = block.mlp.down_proj if hasattr(block, "mlp") else block.fc2
    return (attention.q_proj, attention.k_proj, attention.v_proj), o, makers, down


def pieces(block, kind, unit):
    """The rows of each linear that makes the unit, and the columns of its reader."""
    (q, k, v), o, makers, down = attention_and_ffn(block)
    if kind == "channels":
        channel = slice(unit, unit + 1)
        return [(linear, channel) for linear in makers], (down, channel)
    head = slice(unit * HEAD_DIM, (unit + 1) * HEAD_DIM)
    if kind == "query_heads":
        return [(q, head)], (o, head)
    readers = q.out_features // k.out_features
    queries = slice(unit * readers * HEAD_DIM, (unit + 1) * readers * HEAD_DIM)
    return [(q, queries), (k, head), (v, head)], (o, queries)


def weights(block, kind, unit):
    """Every weight and bias of the unit, as views: [(linear, parameter, view), …], the columns of the reader last."""
    makers, (reader, columns) = pieces(block, kind, unit)
    found = []
    for linear, rows in makers:
        found += [
            (linear, parameter, parameter[rows]) for parameter in (linear.weight, linear.bias) if parameter is not None
        ]
    return [*found, (reader, reader.weight, reader.weight[:, columns])]


def blocks_of(model):
    return [block for block in model.base_model.modules() if hasattr(block, "self_attn")]


@torch.no_grad()
def planted(make, kind, salient, count):
    """A model of which one unit of a kind has large weights and all others nearly none, in every block."""
    model = make(tie_word_embeddings=False)
    model.get_output_embeddings().weight.mul_(8)  # it is sure of what it says, so that it can be made to say it worse
    for block in blocks_of(model):
        for unit in range(count):
            for linear, parameter, view in weights(block, kind, unit):
                view.mul_(3 if unit == salient else 0.02)
                if kind == "channels" and unit == salient and parameter is linear.bias:
                    view.add_(1)  # a ReLU lets it pass
    return model


@torch.no_grad()
def said_by(model, windows=8, tokens=24, seed=0):
    """Text that the model itself has said, of which no other is a better model: (windows, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.full((windows, 1), 1)
    for _ in range(tokens - 1):
        chances_BV = model(ids_BT, use_cache=False).logits[:, -1].softmax(-1)
        ids_BT = torch.cat([ids_BT, torch.multinomial(chances_BV, 1, generator=generator)], dim=1)
    return ids_BT
