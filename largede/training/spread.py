"""How far the embeddings of a batch are spread: figures that fall when a model collapses.

Shapes: B local vectors, N vectors of all ranks, D embedding width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from largede.training.collectives import layouts_of, sum_over_ranks


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
    total_D = sum_over_ranks(unit_BD.sum(0)).cpu().double()
    [vectors] = layouts_of((len(unit_BD),), unit_BD.device)
    n = vectors.total
    mean_cosine = (float(total_D @ total_D) - n) / max(1, n * (n - 1))
    if n < unit_BD.shape[1]:
        unit_ND = vectors.gather(unit_BD)
        moment = unit_ND @ unit_ND.T  # has the eigenvalues of the other product that are not zero, and is smaller
    else:
        moment = sum_over_ranks(unit_BD.T @ unit_BD)
    share = torch.linalg.eigvalsh(moment.cpu().double()).clamp_min(0.0)
    share = share / share.sum().clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return Spread(n, mean_cosine, float(entropy.exp()))
