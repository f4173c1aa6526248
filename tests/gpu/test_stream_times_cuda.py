"""Seconds in collectives on a GPU are those of its streams, not those of enqueueing."""

import time

import torch

from largede.training.liveness.activity import activity
from largede.training.liveness.calls import calls_on_gpu, watch_collectives
from largede.training.liveness.stream_times import StreamTimes, stream_times


def test_what_is_enqueued_is_measured_by_the_stream() -> None:
    times = StreamTimes()
    begun = time.perf_counter()
    with times.measured():
        torch.cuda._sleep(1_000_000_000)  # cycles: over a tenth of a second at any clock
    enqueued_s = time.perf_counter() - begun
    seconds = times.take_s()
    assert seconds > 0.1 and enqueued_s < seconds
    assert times.take_s() == 0.0


def test_a_collective_behind_long_work_is_found_on_the_gpu_and_its_seconds_are_booked() -> None:
    watch_collectives()
    tensor = torch.ones(1024, device="cuda")
    torch.distributed.all_reduce(tensor)
    stream_times.take_s()
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)
    torch.distributed.all_reduce(tensor)
    pending = calls_on_gpu()
    assert activity.calls[-1].name == "all_reduce"
    torch.cuda.synchronize()
    assert any("all_reduce" in call for call in pending), pending
    assert calls_on_gpu() == []
    assert 0.0 <= stream_times.take_s() < 10.0
