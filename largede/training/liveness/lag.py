"""Where each rank's time goes, and which rank the others wait for.

With collectives that wait for everybody all steps take equally long on all ranks; a slow rank shows by its own work:
it waits least. Seconds come from `Activity`, which books every moment of the step's threads on a phase or, inside
a collective, on "collectives". On a GPU collectives are enqueued and return at once, so there the seconds in them are
taken by events on the streams they are enqueued to (`liveness.stream_times`); collectives that overlap with computing
count too, so work is then a lower bound.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from largede.training.collectives import objects_of_ranks, rank
from largede.training.liveness.activity import COLLECTIVES, READING, SAVING, activity
from largede.training.liveness.heartbeat import this_place, write_news
from largede.training.liveness.stream_times import stream_times

PARTS = ("work", "collectives", "data", "saving")
LEAST_LAG_S = 0.02
"""Lags below this many seconds per step are not worth a remark."""
LOGS_UNTIL_REMARK = 5


@dataclass(frozen=True)
class RankTimes:
    """Seconds per step of one rank: own work, waiting in collectives, waiting for data, saving.

    `longest_alone_s`: the longest time between two collectives, for which others may have had to wait; not per step.
    """

    rank: int
    host: str
    work: float
    collectives: float
    data: float
    saving: float
    longest_alone_s: float = 0.0

    @property
    def busy(self) -> float:
        """What the others may have to wait for."""
        return self.work + self.data


class Lag:
    """Collects times between two log lines, and remembers which rank has lagged for how many of them."""

    def __init__(self, lag_factor: float | None) -> None:
        self.lag_factor = lag_factor
        self.ranks: list[RankTimes] = []
        self.host = this_place(rank()).host
        self.lagging: int | None = None
        self.logs = 0
        self.remark = ""
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        activity.progress()
        self.before = dict(activity.seconds)
        stream_times.take_s()
        activity.longest_alone_s = 0.0

    def figures(self, steps: int) -> dict[str, float]:
        """The figures of the last `steps` steps, the same on all ranks, for TensorBoard; `remark` may follow.

        Collective.
        """
        self.ranks = ranks = objects_of_ranks(self._own(max(1, steps)))
        self.remark = self._remark(ranks)
        longest_alone_s = max(times.longest_alone_s for times in ranks)
        return {
            **spread_of_times(ranks),
            "ranks/slowest_rank": float(slowest(ranks).rank),
            "ranks/longest_without_collective_s": longest_alone_s,
        }

    def write(self, path: Path, step: int) -> None:
        """The table of all ranks behind the last figures. Called by one rank."""
        write_news(path, {"step": step, "seconds_per_step": [asdict(times) for times in self.ranks]})

    def _own(self, steps: int) -> RankTimes:
        activity.progress()
        spent = {part: (s - self.before.get(part, 0.0)) / steps for part, s in activity.seconds.items()}
        data, saving = spent.get(READING, 0.0), spent.get(SAVING, 0.0)
        in_collectives = spent.get(COLLECTIVES, 0.0) + stream_times.take_s() / steps
        work = max(0.0, sum(spent.values()) - data - saving - in_collectives)
        return RankTimes(rank(), self.host, work, in_collectives, data, saving, activity.longest_alone_s)

    def _remark(self, ranks: Sequence[RankTimes]) -> str:
        """Words about a rank that has lagged in 5, 10, 20, … log intervals without a break; else nothing."""
        if self.lag_factor is None or len(ranks) < 2:
            return ""
        slow, usual = slowest(ranks), statistics.median_low(times.busy for times in ranks)
        is_slow = slow.busy > max(self.lag_factor * usual, usual + LEAST_LAG_S)
        self.logs = self.logs + 1 if is_slow and slow.rank == self.lagging else int(is_slow)
        self.lagging = slow.rank if is_slow else None
        doublings, rest = divmod(self.logs, LOGS_UNTIL_REMARK)
        if rest or doublings.bit_count() != 1:
            return ""
        of_data = f", {slow.data:.3g} s of it waiting for data" if slow.data > 0.1 * slow.busy else ""
        return (
            f"warning: the others wait for rank {slow.rank} on {slow.host}: it works {slow.busy:.3g} s in a step, the "
            f"median rank {usual:.3g} s{of_data}; so in the last {self.logs} log intervals"
        )


def slowest(ranks: Sequence[RankTimes]) -> RankTimes:
    """The rank that works longest by itself, saving left out."""
    return max(ranks, key=lambda times: times.busy)


def spread_of_times(ranks: Sequence[RankTimes]) -> dict[str, float]:
    """`ranks/work_s_min`, `…_median`, `…_max` and so on: few figures for any number of ranks."""
    figures = {}
    for part in PARTS:
        seconds = [getattr(times, part) for times in ranks]
        figures[f"ranks/{part}_s_min"] = min(seconds)
        figures[f"ranks/{part}_s_median"] = statistics.median(seconds)
        figures[f"ranks/{part}_s_max"] = max(seconds)
    return figures
