"""The learning rate of a step."""

from largede.config.recipe import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Rate for step 0, 1, ... : linear warm-up to the peak, then linear decay to 0 at `total_steps`, or flat.

    Source: t5x_retrieval's rate, peak * min(step / warmup, 1 + decay * (warmup - step)) with decay 1 / total_steps
    and never below 0; here the first step is already above zero and the decay ends exactly at `total_steps`.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return config.learning_rate * warm
    falling_steps = max(1, total_steps - config.warmup_steps)
    left = min(1.0, max(0.0, (total_steps - step) / falling_steps))
    return config.learning_rate * min(warm, left)
