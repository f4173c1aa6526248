"""Which rank a process is, as its launcher says."""

import pytest

from largede.errors import MachineError
from largede.launched import translate_openmpi

FOUR = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


def test_mpirun_says_it_in_words_of_its_own() -> None:
    environment = FOUR | {"MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
    translate_openmpi(environment)
    assert {environment[name] for name in ("RANK", "WORLD_SIZE")} == {"3", "4"}
    assert environment["LOCAL_RANK"] == "1" and environment["LOCAL_WORLD_SIZE"] == "2"


def test_ranks_that_are_not_told_where_they_meet_are_refused() -> None:
    with pytest.raises(MachineError, match="4 ranks without MASTER_ADDR"):
        translate_openmpi(dict(FOUR))


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", **FOUR}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_other_launchers_and_lone_processes_are_left_alone(environment: dict[str, str]) -> None:
    before = dict(environment)
    translate_openmpi(environment)
    assert environment == before
