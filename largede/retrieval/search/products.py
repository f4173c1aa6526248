"""Products of many queries and many documents, as fast as this processor's libraries have them.

Shapes: B queries, N documents, D dimensions.
"""

import warnings

import numpy as np


def rough_scores(query_BD: np.ndarray, vector_ND: np.ndarray) -> np.ndarray:
    """Inner products (B, N), float32 sums of float32 products in an order of the library's own."""
    import torch

    from largede.onednn import has_products, keeps_float32

    # One query waits for memory, and numpy begins sooner.
    if len(query_BD) == 1 or not has_products(torch.float32) or not keeps_float32():
        plain: np.ndarray = query_BD @ vector_ND.T
        return plain
    with warnings.catch_warnings():
        # A shard is mapped to be read only, and nothing is written here.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        query, vector = torch.from_numpy(query_BD), torch.from_numpy(vector_ND)
    with torch.no_grad():
        scores: np.ndarray = torch.ops.mkldnn._linear_pointwise(query, vector, None, "none", [], "").numpy()
    return scores
