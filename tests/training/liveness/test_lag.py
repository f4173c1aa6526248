"""The rank that the others wait for is found by its own work, and remarked now and then."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from ranks import run_on_ranks

from largede.training.collectives import all_or_none, any_over_ranks, group_device
from largede.training.liveness.activity import READING, SAVING, activity, phase
from largede.training.liveness.calls import watch_collectives
from largede.training.liveness.lag import Lag, RankTimes, slowest, spread_of_times

WORK_S, SLOW_S, READ_S, SAVE_S = 0.05, 0.25, 0.1, 0.15


def steps_with_a_slow_rank(folder: str) -> dict[str, Any]:
    """Two steps in which rank 1 works longer and rank 0 reads and saves longer; then their figures."""
    watch_collectives()
    lag = Lag(1.5)
    is_slow = dist.get_rank() == 1
    lag.begin()
    for _ in range(2):
        time.sleep(SLOW_S if is_slow else WORK_S)
        with phase(READING):
            time.sleep(0.0 if is_slow else READ_S)
        any_over_ranks(False, group_device())
        with phase(SAVING):
            all_or_none(lambda: time.sleep(0.0 if is_slow else SAVE_S))
    figures = lag.figures(2)
    if dist.get_rank() == 0:
        lag.write(Path(folder) / "ranks.json", 7)
    return {"figures": figures}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("lag")
    return folder, run_on_ranks(2, steps_with_a_slow_rank, folder, str(folder))


def test_seconds_are_booked_on_what_they_were_spent_on(answers: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, [first, second] = answers
    figures = first["figures"]
    assert figures == second["figures"], "known to all ranks"
    assert figures["ranks/slowest_rank"] == 1.0
    # Sleeps may take longer on a busy machine, never shorter.
    assert figures["ranks/work_s_max"] >= SLOW_S
    assert figures["ranks/work_s_min"] >= WORK_S
    assert figures["ranks/data_s_max"] >= READ_S and figures["ranks/data_s_min"] < READ_S
    assert figures["ranks/saving_s_max"] >= SAVE_S and figures["ranks/saving_s_min"] < SAVE_S
    table = json.loads((folder / "ranks.json").read_text(encoding="utf-8"))
    assert table["step"] == 7 and [row["rank"] for row in table["seconds_per_step"]] == [0, 1]
    waited = {row["rank"]: row["collectives"] for row in table["seconds_per_step"]}
    # Rank 0 waits for the slow step, rank 1 for the saving.
    assert waited[0] >= 0.5 * (SLOW_S - WORK_S - READ_S) and waited[1] >= 0.5 * SAVE_S


def times(*busy: float) -> list[RankTimes]:
    return [
        RankTimes(number, f"host-{number // 2}", work, max(busy) - work, 0.0, 0.0) for number, work in enumerate(busy)
    ]


def test_a_lagging_rank_is_remarked_after_5_logs_then_after_10_and_20() -> None:
    lag = Lag(1.5)
    remarks = [lag._remark(times(1.0, 1.1, 1.0, 2.0)) for _ in range(25)]
    assert [at for at, words in enumerate(remarks, start=1) if words] == [5, 10, 20]
    assert "rank 3 on host-1: it works 2 s in a step, the median rank 1 s" in remarks[4]


def test_one_slow_interval_or_another_slow_rank_begins_the_count_anew() -> None:
    lag = Lag(1.5)
    changing = [times(1.0, 2.0), times(2.0, 1.0), times(1.0, 1.0), *[times(1.0, 2.0)] * 4]
    assert not any(lag._remark(ranks) for ranks in changing)
    assert "rank 1" in lag._remark(times(1.0, 2.0))


def test_lags_of_milliseconds_are_no_remark() -> None:
    lag = Lag(1.5)
    assert not any(lag._remark(times(0.001, 0.005)) for _ in range(20))


def test_many_ranks_make_no_more_figures_than_two() -> None:
    few, many = spread_of_times(times(1.0, 2.0)), spread_of_times(times(*[1.0] * 511, 3.0))
    assert few.keys() == many.keys() and len(many) == 12
    assert many["ranks/work_s_max"] == 3.0 and many["ranks/work_s_median"] == 1.0
    assert slowest(times(*[1.0] * 511, 3.0)).rank == 511


def test_time_beside_the_step_is_not_booked() -> None:
    import threading

    def save() -> None:
        with phase(SAVING):
            time.sleep(0.05)

    before = activity.seconds[SAVING]
    thread = threading.Thread(target=save)
    thread.start()
    thread.join()
    assert activity.seconds[SAVING] == before
