"""The machine a plan is made for: what a person knows about it, and what is assumed where they do not say."""

from dataclasses import dataclass
from typing import Literal

from largede.errors import MachineError

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """GPUs of one kind, equally many on every node. Rates are per GPU unless they say otherwise.

    Defaults are an H100 node's: dense bf16 arithmetic, NVLink inside the node, 400 Gbit/s between nodes for each GPU.
    """

    gpus: int
    gpu_gib: float = 80.0
    nodes: int = 1
    host_gib: float | None = None
    """Main memory of one node; unknown: what has to be held there is shown and not held against a limit."""
    reserve_gib: float = 2.0
    """Of each GPU, for what is no tensor: the CUDA context, libraries, NCCL's buffers, gaps of the allocator."""
    gpu_tflops: float = 989.0
    mfu: float = 0.4
    """Share of `gpu_tflops` that the arithmetic reaches while it runs: an assumption."""
    link_gbs: float = 450.0
    """GB/s of one GPU to the others of its node, one way."""
    network_gbs: float = 50.0
    """GB/s of one GPU to GPUs of other nodes, one way."""
    hbm_gbs: float = 3350.0
    """GB/s of a GPU to its own memory."""
    host_link_gbs: float = 50.0
    """GB/s between one GPU and main memory, one way."""
    loader_pairs_per_s: float = 8_000.0
    """Pairs that one loader process reads, tokenises and packs in a second; 8,800 and more were measured on one core
    of an AMD EPYC with T5's vocabulary and pairs of 1,171 bytes (largede/streams/README.md)."""
    query_tokens: float | None = None
    passage_tokens: float | None = None
    """Mean real tokens of a text, for time; unknown: half the recipe's limit."""
    device: Literal["gpu", "cpu"] = "gpu"

    def __post_init__(self) -> None:
        for name in ("gpus", "gpu_gib", "nodes", "gpu_tflops", "link_gbs", "network_gbs", "hbm_gbs", "host_link_gbs"):
            self._demand_positive(name)
        for name in ("loader_pairs_per_s", "query_tokens", "passage_tokens", "host_gib"):
            if getattr(self, name) is not None:
                self._demand_positive(name)
        if not 0 <= self.reserve_gib < self.gpu_gib:
            raise MachineError(
                f"--reserve-gib {self.reserve_gib} of {self.gpu_gib}",
                expected="zero or more, below --gpu-gib",
                mend="2 is usual",
            )
        if not 0 < self.mfu <= 1:
            raise MachineError(f"--mfu {self.mfu}", expected="a share above 0, up to 1", mend="0.4 is usual")
        if self.gpus % self.nodes:
            raise MachineError(
                f"{self.gpus} GPUs on {self.nodes} nodes",
                expected="the same number of GPUs on every node",
                mend="give --gpus as a multiple of --nodes: it counts the GPUs of all nodes",
            )

    def _demand_positive(self, name: str) -> None:
        value = getattr(self, name)
        if not value > 0 or value == float("inf"):
            flag = "--" + name.replace("_", "-")
            raise MachineError(f"{flag} {value}", expected="a number above zero", mend=f"give {flag} a positive number")

    @property
    def gpus_per_node(self) -> int:
        return self.gpus // self.nodes
