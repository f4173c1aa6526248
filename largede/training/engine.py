"""A recipe and a model into a DeepSpeed engine, and the process group it runs in."""

import os
import warnings
from datetime import timedelta
from typing import Any

import torch

from largede.config.batch import BatchPlan
from largede.config.recipe import EngineConfig, GuardConfig, Recipe
from largede.errors import MachineError
from largede.launched import translate_openmpi
from largede.models.build import prepare_libraries
from largede.models.dual_encoder import DualEncoder
from largede.processors import processors
from largede.training.adafactor import ZeroAdafactor
from largede.training.deepspeed_settings import checked_settings
from largede.training.liveness.activity import LONG_PHASE_FACTOR
from largede.training.optimizers import build_optimizer
from largede.training.slices import flat_groups

UNWATCHED_TIMEOUT = timedelta(minutes=60)


def group_timeout(guard: GuardConfig) -> timedelta:
    """How long a collective may wait before the process group itself ends the run.

    Twice what the watchdog allows the longest phase, so that the watchdog has named who hangs by then.
    """
    if guard.hang_after_s is None:
        return UNWATCHED_TIMEOUT
    return timedelta(seconds=2 * LONG_PHASE_FACTOR * guard.hang_after_s)


def join_ranks(engine: EngineConfig, timeout: timedelta = UNWATCHED_TIMEOUT) -> None:
    """Start the process group (NCCL with a GPU, gloo without), also for a process started alone.

    Raises:
        MachineError: more ranks on this machine than GPUs, where there are GPUs.
    """
    prepare_libraries()
    import deepspeed

    quieten_libraries()
    translate_openmpi(os.environ)
    for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, alone)
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise MachineError(
                f"local rank {local_rank} on a machine with {torch.cuda.device_count()} GPUs",
                expected="one GPU for each rank",
                mend="start fewer ranks: deepspeed --num_gpus N",
            )
        torch.cuda.set_device(local_rank)
    else:
        _prepare_cpu(engine)
    deepspeed.init_distributed(timeout=timeout, dist_backend="nccl" if torch.cuda.is_available() else "gloo")


def leave_ranks(*, all_ranks_leave: bool) -> None:
    """End the process group, so that peers of a rank that leaves see a closed connection at once.

    Its threads may live on; a rank's process ends by `largede.verbs.enter`, which does not mind them. When only this
    rank may be leaving (an error), an NCCL group is left to the launcher: ending it could wait for ever.
    """
    group = torch.distributed
    if group.is_initialized() and (all_ranks_leave or group.get_backend() == "gloo"):
        group.destroy_process_group()


def quieten_libraries() -> None:
    """Leave out two warnings that speak to DeepSpeed's developers: torch's renamed collectives, our own optimizer."""
    from deepspeed.utils import logger

    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.distributed.*")
    logger.addFilter(lambda record: "untested optimizer" not in record.getMessage())


def _prepare_cpu(engine: EngineConfig) -> None:
    import deepspeed

    # The shared-memory collective is a C++ operator built on first use; without a compiler it would end the run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local_ranks = ranks_on_this_host(int(os.environ["WORLD_SIZE"]))
    torch.set_num_threads(engine.cpu_threads or max(1, processors() // local_ranks))


def build_engine(model: DualEncoder, recipe: Recipe, optimizer_type: type[ZeroAdafactor] = ZeroAdafactor) -> Any:
    """The DeepSpeed engine of this rank, its optimizer bound to its slices. Collective.

    `optimizer_type` lets a test look over the optimizer's shoulder.

    Raises:
        RecipeError: the DeepSpeed file sets what the recipe owns, or asks for what the recipe cannot have.
    """
    import deepspeed
    from deepspeed import comm

    plan = BatchPlan(recipe.batch.queries, comm.get_world_size())
    config = deepspeed_config(recipe, plan)
    optimizer = build_optimizer(model, recipe.optimizer, optimizer_type)  # first: it freezes what the recipe freezes
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.choose_attention(recipe.engine.attention, on_gpu=torch.cuda.is_available())
    if recipe.engine.activation_checkpointing:
        model.enable_activation_checkpointing()
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=trainable, optimizer=optimizer, config=config)
    if isinstance(optimizer, ZeroAdafactor):
        optimizer.bind(flat_groups(engine))
    return engine


def deepspeed_config(recipe: Recipe, plan: BatchPlan) -> dict[str, Any]:
    """The JSON file named by the recipe, completed by what the recipe owns.

    Raises:
        RecipeError: a setting that the recipe or these ranks cannot have.
    """
    return {
        **checked_settings(recipe, plan.world_size, ranks_on_this_host(plan.world_size)),
        **plan.deepspeed_numbers(),
        # DeepSpeed clips at 1.0 unless told not to; GTR does not clip by global norm.
        "gradient_clipping": recipe.optimizer.clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def ranks_on_this_host(ranks: int) -> int:
    """As the launcher says: torchrun in LOCAL_WORLD_SIZE, deepspeed in LOCAL_SIZE; all `ranks` where none does."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or ranks)
