"""Learning rates written out step by step, for tests to compare with."""

from math import sqrt


def stable(steps: int, warmup: float, peak: float) -> list[float]:
    """The rate of each step: a straight line up, the peak, and peak · (1 − √x) in the last fifth, x from 0 towards 1."""
    rising = round(warmup * steps)
    falling = min(round(steps / 5), steps - rising)
    up = [peak * at / rising for at in range(rising)]
    down = [peak * (1 - sqrt(at / falling)) for at in range(falling)]
    return up + [peak] * (steps - rising - falling) + down
