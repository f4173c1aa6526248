"""What every rank of a test imports, imported once by the server that ranks are forked from."""

import os

os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")

import deepspeed  # noqa: F401
import transformers.models.t5.modeling_t5  # noqa: F401

import largede.training.trainer  # noqa: F401
