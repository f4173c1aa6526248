"""How far the embeddings of a batch are spread: figures that fall when a model collapses.

Shapes: B local vectors, D embedding width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from largede.training.collectives import sum_over_ranks


@dataclass(frozen=True)
class Spread:
    """All ranks' vectors of one kind: how many, their mean cosine to each other, in how many directions they lie."""

    vectors: int
    mean_cosine: float
    effective_rank: float


def spread_over_ranks(embedding_BD: Tensor) -> Spread:
    """Mean cosine of two different vectors, and the effective rank. Collective.

    The effective rank is exp(entropy) of the shares that the eigenvalues of the second-moment matrix have in its trace
    (Roy and Vetterli 2007, "The effective rank", with squared singular values): 1 when all vectors are parallel, D
    when all directions are used alike.
    """
    unit_BD = torch.nn.functional.normalize(embedding_BD.float(), dim=1)
    D = unit_BD.shape[1]
    local = torch.cat([unit_BD.new_tensor([float(len(unit_BD))]), unit_BD.sum(0), (unit_BD.T @ unit_BD).flatten()])
    count, total_D, moment_DD = sum_over_ranks(local).cpu().double().split([1, D, D * D])
    n = float(count)
    mean_cosine = (float(total_D @ total_D) - n) / max(1.0, n * (n - 1))
    share_D = torch.linalg.eigvalsh(moment_DD.view(D, D) / n).clamp_min(0.0)
    share_D = share_D / share_D.sum().clamp_min(1e-30)
    entropy = -(share_D * share_D.clamp_min(1e-30).log()).sum()
    return Spread(int(n), mean_cosine, float(entropy.exp()))
