"""Tables of prompts and actions whose law is known: what an action costs a prompt can be foretold up to a noise.

Axes: P prompts, A actions, F features.
"""

from dataclasses import replace

import torch

from tasks.train_controller.learn.table import Table
from tasks.train_controller.observation import FEATURES

ACTIONS = ("none", "ffn10", "ffn20", "ffn30", "ffn50")
STILL = {"gpu_use": 0.0, "gpu_memory_free": 0.0, "has_gpu": 0.0, "battery": 1.0}  # a laptop on mains


def a_table(prompts: int, seed: int = 0, *, noise: float = 0.15, shuffled: bool = False) -> Table:
    """The larger the cut, the faster; the harder the prompt, the more it costs: rises are log-normal, so skewed.

    `shuffled`: the features are those of other prompts.
    """
    random = torch.Generator().manual_seed(seed)
    state_PF = torch.rand(prompts, len(FEATURES), generator=random, dtype=torch.float64)
    for name, value in STILL.items():
        state_PF[:, FEATURES.index(name)] = value
    tokens_P1, ppl_P1, entropy_P1 = (
        state_PF[:, [FEATURES.index(name)]] for name in ("prompt_tokens", "prompt_ppl", "entropy")
    )
    state_PF[:, [FEATURES.index("complexity")]] = 0.6 * tokens_P1 + 0.4 * ppl_P1
    size_A = torch.linspace(0, 1, len(ACTIONS), dtype=torch.float64)
    hard_P1 = 3 * (ppl_P1 - 0.5) + 2 * (entropy_P1 - 0.5) * (1 + tokens_P1)
    noise_PA = noise * torch.randn(prompts, len(ACTIONS), generator=random, dtype=torch.float64)
    rise_PA = (-4.5 + 2.5 * size_A + hard_P1 + noise_PA).exp()
    rise_PA[:, 0] = 0
    if shuffled:
        state_PF = state_PF[torch.randperm(prompts, generator=random)]
    return Table(
        actions=ACTIONS,
        features=FEATURES,
        prompts=tuple(f"{seed}-{number}" for number in range(prompts)),
        sources=("made up",) * prompts,
        state_PF=state_PF,
        ratio_PA=1 + 0.6 * size_A * (1 - 0.3 * tokens_P1),
        rise_PA=rise_PA,
        kl_PA=rise_PA / 2,
    )


def at_load(table: Table, least: float, most: float) -> Table:
    """The same prompts on a machine whose use of the CPU lies between the two."""
    state_PF = table.state_PF.clone()
    state_PF[:, FEATURES.index("cpu_use")] = torch.linspace(least, most, len(table), dtype=torch.float64)
    return replace(table, state_PF=state_PF)
