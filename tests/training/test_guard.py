"""Guards: what counts as a spike or a collapse, and what does not."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from largede.config.recipe import GuardConfig
from largede.training.guard import CollapseGuard, SpikeGuard
from largede.training.spread import Spread, spread_over_ranks

CONFIG = GuardConfig(spike_window=10, spike_patience=3, spike_factor=2.0)


def verdicts(losses: list[float], config: GuardConfig = CONFIG) -> list[int]:
    """Places at which a spike is seen."""
    guard = SpikeGuard(config)
    return [i for i, loss in enumerate(losses) if guard.sees_spike(loss)]


def test_a_spike_is_several_high_losses_in_a_row() -> None:
    calm = [1.0 + 0.1 * (i % 3) for i in range(10)]
    assert verdicts([*calm, 3.0, 3.0, 3.0, 3.0]) == [12]
    assert verdicts([*calm, 3.0, 3.0, 1.0, 3.0, 3.0, 1.0]) == []


def test_a_falling_loss_is_no_spike_and_neither_is_the_beginning() -> None:
    assert verdicts([10.0 * 0.9**i for i in range(60)]) == []
    assert verdicts([1.0, 1.0, 9.0, 9.0, 9.0, 9.0]) == []


def test_a_reported_level_becomes_the_new_measure() -> None:
    assert verdicts([1.0] * 10 + [5.0] * 30) == [12]


def test_high_losses_do_not_move_the_median() -> None:
    assert verdicts([1.0] * 10 + [2.5, 2.5, 1.0] * 20) == []
    assert verdicts([1.0] * 10 + [2.5, 2.5, 1.0] * 20 + [2.5, 2.5, 2.5]) == [72]


def test_spread_of_parallel_and_of_orthogonal_vectors() -> None:
    parallel = spread_over_ranks(torch.ones(8, 4) * torch.arange(1, 9)[:, None])
    assert parallel.mean_cosine == pytest.approx(1.0)
    assert parallel.effective_rank == pytest.approx(1.0)
    orthogonal = spread_over_ranks(3.0 * torch.eye(6))
    assert orthogonal.mean_cosine == pytest.approx(0.0, abs=1e-6)
    assert orthogonal.effective_rank == pytest.approx(6.0)
    assert orthogonal.vectors == 6


def made_vectors(width: int) -> torch.Tensor:
    return torch.randn(20, width, generator=torch.Generator().manual_seed(0))


def check_spread(found: Spread, vectors: torch.Tensor) -> None:
    """Against the plain definition."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosines = (unit @ unit.T)[~torch.eye(20, dtype=torch.bool)]
    shares = torch.linalg.svdvals(unit.double()).square() / 20
    entropy = -(shares * shares.log()).sum()
    assert found.vectors == 20
    assert found.mean_cosine == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert found.effective_rank == pytest.approx(float(entropy.exp()), rel=1e-5)


MORE_AND_FEWER_VECTORS_THAN_ENTRIES = (7, 20, 50)


@pytest.mark.parametrize("width", MORE_AND_FEWER_VECTORS_THAN_ENTRIES)
def test_spread_equals_the_plain_definition(width: int) -> None:
    check_spread(spread_over_ranks(made_vectors(width)), made_vectors(width))


def spreads_of_ragged_ranks() -> list[Spread]:
    mine = slice(0, 13) if dist.get_rank() == 0 else slice(13, 20)
    return [spread_over_ranks(made_vectors(width)[mine]) for width in MORE_AND_FEWER_VECTORS_THAN_ENTRIES]


def test_spread_is_that_of_all_ranks_vectors(tmp_path: Path) -> None:
    for spreads in run_on_ranks(2, spreads_of_ragged_ranks, tmp_path):
        for width, found in zip(MORE_AND_FEWER_VECTORS_THAN_ENTRIES, spreads, strict=True):
            check_spread(found, made_vectors(width))


def test_a_collapse_is_seen_twice_in_a_row_and_after_the_warm_up() -> None:
    guard = CollapseGuard(GuardConfig(), from_step=100)
    narrow, wide = {"queries": Spread(64, 0.99, 30.0)}, {"queries": Spread(64, 0.5, 30.0)}
    assert guard.sees_collapse(50, narrow) is None
    assert guard.sees_collapse(60, narrow) is None
    assert guard.sees_collapse(100, narrow) is None
    assert guard.sees_collapse(110, wide) is None
    assert guard.sees_collapse(120, narrow) is None
    assert "mean cosine of 0.990" in (guard.sees_collapse(130, narrow) or "")
    assert guard.sees_collapse(140, narrow) is None, "said already"
    flat = {"passages": Spread(64, 0.1, 2.0)}
    assert guard.sees_collapse(150, wide) is None
    assert guard.sees_collapse(160, flat) is None
    assert "span 2.0 directions" in (guard.sees_collapse(170, flat) or "")
    assert CollapseGuard(GuardConfig(), from_step=0).sees_collapse(5, {"queries": Spread(4, 0.1, 3.0)}) is None


def test_updates_are_summed_up_by_kind_of_parameter() -> None:
    from largede.training.adafactor import update_by_kind

    names = ["t.encoder.shared.weight", "t.block.0.SelfAttention.q.weight", "t.block.1.SelfAttention.o.weight", "x"]
    found = update_by_kind({name: torch.tensor(value) for name, value in zip(names, (1.0, 3.0, 4.0, 5.0), strict=True)})
    assert found == pytest.approx({"embedder": 1.0, "attention": (12.5) ** 0.5, "other": 5.0})
    assert update_by_kind({}) == {}
