"""Where FAISS looks for candidates: the CPU, one GPU, or all of a machine's.

A shard is split among the GPUs, each holding its rows alone: rows cross the bus once, and FAISS's own sharded index,
which takes three times the memory while rows are added, is not used. A copy of the shard on each GPU would only help
where few rows meet very many queries.

Shapes: N documents of a shard, B queries, C candidates, D dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from largede.errors import MachineError
from largede.retrieval.search_settings import SearchSettings

# The most that FAISS returns for one query on a GPU.
GPU_CANDIDATES = 2048


@dataclass(frozen=True)
class Candidates:
    """FAISS's scores and rows; `bound_B`: no document that is left out has a higher FAISS score (-inf: none is)."""

    score_BC: np.ndarray
    row_BC: np.ndarray
    bound_B: np.ndarray


@dataclass(frozen=True)
class Finder:
    """Collects candidates of one shard. FAISS's score is off by at most `rounding` * |query| * |document|."""

    find: Callable[[np.ndarray], Candidates]
    rounding: float


def gpus_of(settings: SearchSettings) -> tuple[int, ...]:
    """The GPUs to use; none means the CPU. Raises MachineError when there are fewer than asked for."""
    if settings.device == "cpu" or not settings.is_exact:
        return ()
    there = _gpus_here()
    if settings.device.startswith("cuda:"):
        wanted: tuple[int, ...] = (int(settings.device[5:]),)
    elif settings.gpus is not None or settings.device == "cuda":
        wanted = tuple(range(settings.gpus or 1))
    else:
        wanted = tuple(range(there))
    if any(gpu >= there for gpu in wanted):
        asked = f"number {wanted[0]} was" if settings.device.startswith("cuda:") else f"{len(wanted)} were"
        raise MachineError(
            f"FAISS sees {there} GPUs, {asked} asked for" if there else "--search-device cuda and FAISS sees no GPU",
            expected="faiss-gpu, and NVIDIA GPUs as many as asked for",
            mend="install faiss-gpu instead of faiss-cpu, or choose --search-device cpu",
        )
    return wanted


def for_process(settings: SearchSettings, device: str | None) -> SearchSettings:
    """Settings of one of several processes: it keeps to its own GPU where it was left open which."""
    if settings.is_exact and settings.device in ("auto", "cuda") and device is not None and device.startswith("cuda:"):
        return replace(settings, device=device, gpus=None)
    return settings


def float32_rounding(dimension: int) -> float:
    """The most that a sum of D float32 products, in whatever order, is off from the kernel's, in parts of the lengths.

    D rounding units, one for the kernel's own float32, and a little.
    """
    return (dimension + 4) * 2.0**-24 * 1.01


def open_finder(vector_ND: np.ndarray, depth: int, gpus: Sequence[int], *, half: bool) -> Finder:
    """`half`: the vectors are float16 numbers, and a GPU may hold them so."""
    rounding = float32_rounding(vector_ND.shape[1])
    # More than `depth`, so that the list reaches below the line where rounding could hide a document. With float16
    # storage FAISS rounds the queries too.
    finder = _gpu_finder(vector_ND, depth + max(32, depth // 16), gpus, half=half)
    return Finder(finder, rounding + (2.0**-11 if half else 0.0))


def _gpu_finder(
    vector_ND: np.ndarray, fetched: int, gpus: Sequence[int], *, half: bool
) -> Callable[[np.ndarray], Candidates]:
    # Beyond what a GPU returns, more and smaller parts; what of the best falls into one part is then a matter of luck,
    # and the bound says whether it was good.
    count = max(len(gpus), -(-2 * fetched // GPU_CANDIDATES) if fetched > GPU_CANDIDATES else 1)
    edges = np.linspace(0, len(vector_ND), min(count, len(vector_ND)) + 1).astype(int)
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    indexes = [
        (first, gpu_index(vector_ND[first:last], gpus[place % len(gpus)], half=half))
        for place, (first, last) in enumerate(spans)
    ]

    def find(query_BD: np.ndarray) -> Candidates:
        with ThreadPoolExecutor(len(indexes)) as pool:
            parts = list(pool.map(lambda part: _find_in(part[0], part[1], fetched, query_BD), indexes))
        bound_B = np.max([part.bound_B for part in parts], axis=0)
        score_BC = np.concatenate([part.score_BC for part in parts], axis=1)
        row_BC = np.concatenate([part.row_BC for part in parts], axis=1)
        return Candidates(score_BC, row_BC, bound_B)

    return find


def _find_in(first: int, index: Any, fetched: int, query_BD: np.ndarray) -> Candidates:
    count = min(fetched, index.ntotal, GPU_CANDIDATES)
    score_BC, row_BC = index.search(query_BD, count)
    bound_B = np.full(len(query_BD), -np.inf, np.float32) if count == index.ntotal else score_BC[:, -1]
    return Candidates(score_BC, row_BC + first, bound_B)


def gpu_index(vector_ND: np.ndarray, gpu: int, *, half: bool) -> Any:
    """A flat inner-product index on one GPU."""
    import faiss

    config = faiss.GpuIndexFlatConfig()
    config.device = gpu
    config.useFloat16 = half
    index = faiss.GpuIndexFlatIP(_resources(gpu), vector_ND.shape[1], config)
    index.add(np.ascontiguousarray(vector_ND))
    return index


@functools.cache
def _resources(gpu: int) -> Any:
    # One for each GPU and process: each takes 1.5 GiB of work space.
    import faiss

    return faiss.StandardGpuResources()


def _gpus_here() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def threads_here() -> int:
    """As many as FAISS uses, so that OMP_NUM_THREADS holds for all of a search."""
    import faiss

    return int(faiss.omp_get_max_threads())
