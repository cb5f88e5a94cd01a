"""The learning rate over a training: it rises, stays, and falls (warm-up, stable, decay; arXiv:2405.18392)."""


def trapezoid(spent: float, warmup: float, decay: float) -> float:
    """The factor on the peak rate after a fraction `spent` of the training; `warmup` and `decay` are such fractions.

    From 0 straight up to 1 at `warmup`, and from 1 at 1 - `decay` straight down to 0 at the end; a fraction of 0 means
    that there is no rise, or no fall.
    """
    rising = spent / warmup if warmup else 1.0
    falling = (1.0 - spent) / decay if decay else 1.0
    return max(0.0, min(1.0, rising, falling))
