"""What tells that a run is in trouble: a loss that jumps and stays up, or embeddings that collapse.

Every rank sees the same figures, so every rank comes to the same verdict without asking the others.
"""

import statistics
from collections import deque

from largede.config.recipe import GuardConfig
from largede.training.spread import Spread


class SpikeGuard:
    """Remembers recent losses; a spike is `spike_patience` losses in a row above `spike_factor` times their median."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.begin()

    def begin(self) -> None:
        """Forget what was seen: after a rewind, or when a new level has been reported."""
        self.recent: deque[float] = deque(maxlen=self.config.spike_window)
        self.high: list[float] = []

    def sees_spike(self, loss: float) -> str | None:
        """What is wrong, in words, or None. High losses do not count towards the median they are measured by."""
        is_settled = 2 * len(self.recent) >= self.config.spike_window
        usual = statistics.median(self.recent) if is_settled else loss
        if loss <= self.config.spike_factor * usual:
            self.recent.append(loss)
            self.high = []
            return None
        self.high.append(loss)
        if len(self.high) < self.config.spike_patience:
            return None
        found = (
            f"the loss has been above {self.config.spike_factor:g} times its median {usual:.3f} for {len(self.high)} "
            f"steps: {', '.join(f'{high:.3f}' for high in self.high[-5:])}"
        )
        self.begin()
        return found


class CollapseGuard:
    """Says when unrelated texts have become nearly the same vector, twice in a row, after the warm-up."""

    def __init__(self, config: GuardConfig, *, from_step: int) -> None:
        self.config = config
        self.from_step = from_step
        self.seen = 0

    def sees_collapse(self, step: int, spread: dict[str, Spread]) -> str | None:
        """What is wrong, in words, or None; said once until it is over.

        Fresh weights start collapsed, so steps before `from_step` do not count.
        """
        found = [text for side, figures in spread.items() if (text := self._verdict(side, figures))]
        self.seen = self.seen + 1 if found and step >= self.from_step else 0
        return found[0] if self.seen == 2 else None

    def _verdict(self, side: str, spread: Spread) -> str | None:
        if spread.mean_cosine > self.config.collapse_cosine:
            return f"unrelated {side} have a mean cosine of {spread.mean_cosine:.3f}"
        # A batch of n vectors cannot span more than n directions.
        if spread.effective_rank < min(self.config.collapse_rank, 0.5 * spread.vectors):
            return f"the {side} of a batch span {spread.effective_rank:.1f} directions"
        return None
