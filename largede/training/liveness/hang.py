"""Who holds up a run: from what every rank last said of itself to a few sentences."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from largede.training.liveness.heartbeat import Heartbeat


@dataclass(frozen=True)
class Account:
    """One rank as the reporter sees it: its last heartbeat, and what is known beyond it.

    `silent_s`: how long its heartbeat has stood still, when that is too long. `process`: "ended", "stopped" or nothing.
    `stacks`: the file its stacks went to although it could not say so itself.
    """

    rank: int
    heartbeat: Heartbeat | None
    silent_s: float | None = None
    process: str = ""
    stacks: str = ""

    @property
    def is_gone(self) -> bool:
        """It will not answer: ended, stopped, left, or silent."""
        beat = self.heartbeat
        has_left = beat is not None and bool(beat.left) and not beat.is_lost
        return bool(self.process) or self.silent_s is not None or has_left

    @property
    def name(self) -> str:
        return str(self.heartbeat.place) if self.heartbeat else f"rank {self.rank}"


def verdict(accounts: Sequence[Account]) -> list[str]:
    """Sentences: first those who hold the others up, then who waits where. Empty when nobody can be named."""
    gone = [account for account in accounts if account.is_gone]
    there = [account.heartbeat for account in accounts if not account.is_gone and account.heartbeat]
    busy = [beat for beat in there if not beat.collective and not beat.left]
    waiting = [beat for beat in there if beat.collective]
    lines = [_gone_line(account) for account in gone]
    lines += [_busy_line(beat) for beat in busy]
    if not (gone or busy):
        lines += differing_calls(waiting)
    return lines + _waiting_lines(waiting)


def _gone_line(account: Account) -> str:
    beat = account.heartbeat
    if beat is None:
        return f"{account.name} has never been heard of"
    last = f"last heard of at {_clock(beat.time_s)} in {_where(beat)}" + (
        f", in {beat.collective}" if beat.collective else ", in no collective"
    )
    if beat.left and not beat.is_lost:
        return f"{account.name} has left: {beat.left}"
    if account.process:
        return f"{account.name} {'has ended' if account.process == 'ended' else 'is stopped'}; {last}{_batch(beat)}"
    silent = f"{account.name} has not been heard of since {_clock(beat.time_s)}; {last}{_batch(beat)}"
    return f"{silent}; its stacks: {account.stacks}" if account.stacks else silent


def _busy_line(beat: Heartbeat) -> str:
    return f"{beat.place} has been in {_where(beat)}, for {beat.idle_s:.0f} s and is in no collective{_batch(beat)}"


def _waiting_lines(waiting: Sequence[Heartbeat]) -> list[str]:
    at: dict[tuple[str, str], list[int]] = defaultdict(list)
    for beat in waiting:
        at[(beat.collective, _where(beat))].append(beat.place.rank)
    return [
        f"{named(ranks)} {'wait' if len(ranks) > 1 else 'waits'} in {collective} of {where}"
        for (collective, where), ranks in at.items()
    ]


def differing_calls(waiting: Sequence[Heartbeat]) -> list[str]:
    """When all wait: the first call in which not all are alike, of those that every rank still remembers."""
    if len(waiting) < 2:
        return []
    ends = [max(beat.calls, default=0) for beat in waiting]
    first = max(min(beat.calls, default=1) for beat in waiting)
    for number in range(first, min(ends) + 1):
        by_call: dict[str, list[Heartbeat]] = defaultdict(list)
        for beat in waiting:
            by_call[beat.calls[number]].append(beat)
        if len(by_call) > 1:
            # The fewer are named first: they are more likely to be at fault.
            parts = sorted(by_call.items(), key=lambda item: len(item[1]))
            called = "; ".join(f"{_named_places(beats)} called {call}" for call, beats in parts)
            return [f"the ranks' collectives differ from #{number} on: {called}"]
    usual = Counter(ends).most_common(1)[0][0]
    return [
        f"{beat.place} has made {abs(end - usual)} collective(s) {'more' if end > usual else 'fewer'} than the others"
        for beat, end in zip(waiting, ends, strict=True)
        if end != usual
    ]


def _named_places(beats: Sequence[Heartbeat]) -> str:
    return str(beats[0].place) if len(beats) == 1 else named([beat.place.rank for beat in beats])


def named(ranks: Sequence[int]) -> str:
    """rank 3; ranks 0, 2; ranks 0 to 62 and 64: neighbours are joined."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    parts = [f"{a}" if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(parts)}"


def _where(beat: Heartbeat) -> str:
    return f"step {beat.step}, phase {beat.phase}"


def _batch(beat: Heartbeat) -> str:
    if not beat.samples:
        return ""
    return f"; the last batch it read, {beat.batch_step}, begins with {', '.join(beat.samples)}"


def _clock(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))
