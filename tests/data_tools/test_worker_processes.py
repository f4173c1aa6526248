import os

import pytest

from data_tools.pipelines.executors import Local, Ray, executor_of
from data_tools.processes import in_processes
from data_tools.shard_settings import Machine
from largede.processors import processors

OPTIONS = {"workers": None, "memory_gib": 4, "tasks_per_job": 1}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to processors")
def test_no_verb_starts_more_processes_than_the_processors_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        local, ray = executor_of("local", OPTIONS), executor_of("ray", OPTIONS)
        assert isinstance(local, Local) and isinstance(ray, Ray)
        assert processors() == Machine().workers == local.workers == ray.workers == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert processors() == len(allowed)


def test_answers_come_in_the_order_of_the_items_in_one_process_or_two() -> None:
    for workers in (1, 2):
        assert list(in_processes(abs, [-3, 1, -2], workers)) == [3, 1, 2]
