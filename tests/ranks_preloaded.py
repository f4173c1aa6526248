"""What every rank of a test imports, imported once by the server that ranks are forked from."""

import os

os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  every engine does; it imports torch's compiler
import torch.utils.tensorboard  # noqa: F401
import transformers.models.t5.modeling_t5  # noqa: F401

import largede.training.trainer  # noqa: F401
