"""Chunks through a tower, as fast as the device allows, in the order they were given.

On a CPU each core computes chunks of its own. The other way, all cores at each operation of one chunk, has them wait
for each other hundreds of times a chunk, and for whoever the machine runs beside them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from largede.models.tower import Tower
from largede.streams.chunks import Chunk


def embed_chunks(tower: Tower, chunks: Sequence[Chunk], device: torch.device) -> Iterator[tuple[Chunk, Tensor]]:
    """Each chunk with its embeddings (B, D), float32 on the device. Without gradients, whatever the caller's mode."""
    threads = min(torch.get_num_threads(), len(chunks))
    if device.type == "cpu" and threads > 1:
        return _on_cores(tower, chunks, threads)
    return _one_by_one(tower, chunks, device)


def _one_by_one(tower: Tower, chunks: Sequence[Chunk], device: torch.device) -> Iterator[tuple[Chunk, Tensor]]:
    """A GPU is given the next chunk before the last one's result is waited for."""
    waiting: tuple[Chunk, Tensor] | None = None
    for chunk in chunks:
        with torch.no_grad():
            embedded = chunk, tower(*chunk.to(device).inputs).float()
        if waiting is not None:
            yield waiting
        waiting = embedded
    if waiting is not None:
        yield waiting


def _on_cores(tower: Tower, chunks: Sequence[Chunk], threads: int) -> Iterator[tuple[Chunk, Tensor]]:
    def embed(chunk: Chunk) -> tuple[Chunk, Tensor]:
        with torch.no_grad():
            return chunk, tower(*chunk.inputs).float()

    with _one_thread_each(), ThreadPoolExecutor(threads, "chunks", torch.set_num_threads, (1,)) as pool:
        yield from pool.map(embed, chunks)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads of a matrix product are counted for the process by some libraries, for the calling thread by others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
