"""Which of several processes this one is, taken from accelerate: alone, torchrun, deepspeed and accelerate alike."""

import os
from dataclasses import dataclass

from largede.launched import translate_openmpi


@dataclass(frozen=True)
class Process:
    rank: int = 0
    world_size: int = 1
    device: str | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def this_process() -> Process:
    """Join the other processes of the launcher, if there is one, and say who and where this one is."""
    translate_openmpi(os.environ)
    import torch
    from accelerate import PartialState

    # Without `cpu`, accelerate takes every CPU process of a launcher for a lone one.
    state = PartialState(cpu=not torch.cuda.is_available())
    return Process(state.process_index, state.num_processes, str(state.device))
