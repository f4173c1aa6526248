"""The one owner of batch arithmetic: which rows of the contrastive batch a rank holds, and DeepSpeed's numbers."""

from dataclasses import dataclass

from largede.errors import RecipeError


@dataclass(frozen=True)
class BatchPlan:
    """How `queries` rows are split over `world_size` ranks; rank r holds rows floor(rB/W) up to floor((r+1)B/W)."""

    queries: int
    world_size: int

    def __post_init__(self) -> None:
        if self.queries < self.world_size:
            raise RecipeError(
                f"batch.queries {self.queries} on {self.world_size} ranks",
                expected="at least one query for each rank",
                mend=f"raise batch.queries to {self.world_size} or more, or start fewer ranks",
            )

    def rows(self, rank: int) -> range:
        """The rows of the global batch that `rank` holds."""
        return range(rank * self.queries // self.world_size, (rank + 1) * self.queries // self.world_size)

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows held by each rank; they differ by one at most."""
        return tuple(len(self.rows(rank)) for rank in range(self.world_size))

    def deepspeed_numbers(self) -> dict[str, int]:
        """The three numbers DeepSpeed insists on, derived.

        One engine step is one contrastive batch, so there is nothing to accumulate. DeepSpeed wants equal ranks; when
        ranks are ragged its own count is rounded up. It uses the numbers for its reports only: the scale of the
        gradient is ours (`training.gradcache`).
        """
        largest = max(self.counts)
        return {
            "train_batch_size": largest * self.world_size,
            "train_micro_batch_size_per_gpu": largest,
            "gradient_accumulation_steps": 1,
        }
