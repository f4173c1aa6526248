"""The machine of a plan, from flags of the command line."""

import argparse
from dataclasses import fields

from largede.training.plan.machine import Machine

EXIT_DOES_NOT_FIT = 3
"""Exit status of `largede plan` when the recipe does not fit; 0 when it does, 2 when the input cannot be used."""

HELP = {
    "gpu_gib": (float, "memory of one GPU, in GiB"),
    "nodes": (int, "machines the GPUs are spread over"),
    "host_gib": (float, "main memory of one node, in GiB, for what is offloaded and for saving; unknown: no limit"),
    "reserve_gib": (float, "of each GPU, for the CUDA context, libraries, NCCL's buffers and the allocator's gaps"),
    "gpu_tflops": (float, "peak of dense bf16 arithmetic of one GPU, in TFLOP/s (an H100's)"),
    "mfu": (float, "share of that peak which the arithmetic reaches: an assumption"),
    "link_gbs": (float, "GB/s of one GPU to the others of its node, one way (NVLink of an H100)"),
    "network_gbs": (float, "GB/s for each GPU between nodes, one way (400 Gbit/s)"),
    "hbm_gbs": (float, "GB/s of a GPU to its own memory"),
    "host_link_gbs": (float, "GB/s between a GPU and main memory, one way"),
    "loader_pairs_per_s": (float, "pairs one loader process reads and tokenises in a second"),
    "query_tokens": (float, "mean tokens of a query, for time; unknown: half the limit"),
    "passage_tokens": (float, "mean tokens of a passage, for time; unknown: half the limit"),
}


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs (ranks) of all nodes together")
    for item in fields(Machine):
        if item.name in HELP:
            kind, says = HELP[item.name]
            default = "" if item.default is None else " (%(default)s)"
            flag = "--" + item.name.replace("_", "-")
            parser.add_argument(flag, type=kind, default=item.default, metavar="X", help=says + default)
    parser.add_argument("--cpu", action="store_true", help="ranks without GPUs: padded attention by CPU kernels")


def machine_from_flags(args: argparse.Namespace) -> Machine:
    """Raises MachineError for numbers that no machine has."""
    given = {name: getattr(args, name) for name in HELP}
    return Machine(gpus=args.gpus, device="cpu" if args.cpu else "gpu", **given)
