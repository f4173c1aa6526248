"""A copy of tensors in host memory, made in a block that is kept for the next time.

Under a GPU the block is page-locked, so that the copy runs at the full rate of the link.
"""

from dataclasses import replace

import torch
from torch import Tensor

from largede.errors import MachineError
from largede.training.checkpoints.tensor_file import TensorFile

ALIGNMENT = 64


class HostBlock:
    """One block of host memory, as large as the largest copy so far; a new copy overwrites the one before."""

    def __init__(self) -> None:
        self.block = torch.empty(0, dtype=torch.uint8)
        self.is_locked = False

    def copy_of(self, files: list[TensorFile]) -> list[TensorFile]:
        """The same files, of tensors that no later step changes. When it returns, all is copied."""
        sizes = [_room(tensor) for file in files for tensor in file.tensors.values()]
        if sum(sizes) > self.block.numel():
            self._take(sum(sizes))
        free = iter(self.block[: sum(sizes)].split(sizes)) if sizes else iter(())
        copied = [
            replace(file, tensors={name: _copy(t, next(free)) for name, t in file.tensors.items()}) for file in files
        ]
        if self.is_locked:
            torch.cuda.synchronize()
        return copied

    def _take(self, size: int) -> None:
        self.release()
        self.block = torch.empty(size, dtype=torch.uint8)
        if torch.cuda.is_available():
            # Not `pin_memory`: torch's own allocator takes the next power of two.
            if int(torch.cuda.cudart().cudaHostRegister(self.block.data_ptr(), size, 0)):
                raise MachineError(
                    f"{size / 2**30:.1f} GiB of host memory cannot be page-locked for the copy of a checkpoint",
                    expected="as much free main memory, and no limit on locked memory (ulimit -l)",
                    mend="raise the limit, or set run.save_async to false",
                )
            self.is_locked = True

    def release(self) -> None:
        """Give the memory back."""
        if self.is_locked:
            torch.cuda.cudart().cudaHostUnregister(self.block.data_ptr())
        self.block, self.is_locked = torch.empty(0, dtype=torch.uint8), False


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT


def _copy(tensor: Tensor, free: Tensor) -> Tensor:
    copy = free[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor.detach(), non_blocking=True)
