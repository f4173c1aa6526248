"""Live tensor bytes by kind while a real step runs: what the plan's predictions are held against.

Every tensor that an operation returns is followed from its birth until its storage is freed, so the figures are those
of the tensors themselves: no allocator, no library, no import is in them. A storage has the kind of whoever made it
(read from the Python stack), unless it is known better: parameters, masters and buffers by identity, a weight's
gradient once autograd has handed it to the weight.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# Innermost frame first: the first file name found says what a storage is for.
KIND_OF_FILE = {
    "partition_parameters.py": "gathered",
    "partitioned_param_coordinator.py": "gathered",
    "parameter_offload.py": "gathered",
    "scoring.py": "representations",
    "contrastive.py": "representations",
    "collectives.py": "representations",
    "adafactor.py": "optimizer",
    "adamw.py": "optimizer",
    "adam.py": "optimizer",
    "stage3.py": "gradients",
    "stage_1_and_2.py": "gradients",
    "coalesced_collectives.py": "buffers",
}
KIND_OF_FUNCTION = {"setup_buckets": "buffers"}


class LiveBytes(TorchDispatchMode):
    """Inside `with LiveBytes() as live`, `live.peak` is the largest sum so far, `live.at_peak` its bytes by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.kind: dict[int, str] = {}
        self.size: dict[int, int] = {}
        self.restart()

    def restart(self) -> None:
        """Forget the peak; what is alive stays counted."""
        self.peak = 0
        self.at_peak: Counter[str] = Counter()
        self._look()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self.follow(tensor)
        return result

    def follow(self, tensor: Tensor, kind: str | None = None) -> None:
        """Count a storage, or give a new kind to one that is counted."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.kind:
            if kind is not None:
                self._move(key, kind)
            return
        self.kind[key] = kind or kind_of_caller()
        self.size[key] = storage.nbytes()
        self.bytes[self.kind[key]] += self.size[key]
        weakref.finalize(storage, self._forget, key)
        self._look()

    def follow_all(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        for tensor in tensors:
            if tensor is not None and tensor.numel():
                self.follow(tensor, kind)

    def _move(self, key: int, kind: str) -> None:
        self.bytes[self.kind[key]] -= self.size[key]
        self.bytes[kind] += self.size[key]
        self.kind[key] = kind

    def _forget(self, key: int) -> None:
        self.bytes[self.kind.pop(key)] -= self.size.pop(key)

    def _look(self) -> None:
        total = self.bytes.total()
        if total > self.peak:
            self.peak, self.at_peak = total, Counter(self.bytes)


def kind_of_caller() -> str:
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        kind = KIND_OF_FUNCTION.get(code.co_name) or KIND_OF_FILE.get(code.co_filename.rpartition("/")[2])
        if kind is not None:
            return kind
        frame = frame.f_back
    return "activations"
