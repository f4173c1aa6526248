"""Which of how many ranks this process is, in the words that torch and DeepSpeed read: RANK, WORLD_SIZE, LOCAL_RANK.

The deepspeed launcher and torchrun say so themselves. OpenMPI has words of its own, and DeepSpeed's launcher leaves the
translation to mpi4py, which needs a compiler to be installed.
"""

from collections.abc import MutableMapping

from largede.errors import MachineError

OPENMPI = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}


def translate_openmpi(environment: MutableMapping[str, str]) -> None:
    """Under mpirun, fill in what torch reads; elsewhere, and for one process alone, change nothing.

    Without it every rank would take itself for a run of its own, all in one folder.

    Raises:
        MachineError: nobody said where the ranks meet.
    """
    if "RANK" in environment or int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) == 1:
        return
    if not (environment.get("MASTER_ADDR") and environment.get("MASTER_PORT")):
        raise MachineError(
            f"mpirun started {environment['OMPI_COMM_WORLD_SIZE']} ranks without MASTER_ADDR and MASTER_PORT",
            expected="the address of the first host and a free port there, the same on all ranks",
            mend="give mpirun, or deepspeed in --launcher_args: -x MASTER_ADDR=... -x MASTER_PORT=29500",
        )
    environment.update({ours: environment[theirs] for ours, theirs in OPENMPI.items()})
