"""What a person sees of a run: a progress line, TensorBoard, and the same figures as JSON lines for the report."""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from largede.config.recipe import Recipe
from largede.durations import duration
from largede.files import read_json_object
from largede.runs.files import FIGURES, RANKS, RUN, TENSORBOARD
from largede.streams.tokenise import RankBatch, SourceCounts
from largede.training.board import introduce, open_writer
from largede.training.collectives import group_device, on_rank_0, rank, sum_over_ranks, world_size
from largede.training.full_disk import FullDisk, append_line
from largede.training.gradcache import StepReport
from largede.training.liveness.lag import Lag
from largede.training.spread import Spread

NONE = SourceCounts(0, 0, 0)


class Monitor:
    """Collects figures between two log lines; rank 0 prints and writes them.

    Whatever writes is collective, so that a disk that fails rank 0 ends all ranks together. Names in TensorBoard are
    grouped and carry their unit: `data/padding_percent` holds percent.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        log_every: int,
        say: Callable[[str], None] = print,
        start: int = 0,
        *,
        lag: Lag,
        goes_on_when_full: bool = False,
    ) -> None:
        self.folder = folder
        self.total_steps = total_steps
        self.log_every = log_every
        self.say = say
        self.disk = FullDisk(folder, goes_on=goes_on_when_full, say=say)
        self.lag = lag
        self.writer: Any = None
        self.purge_step = start + 1 if start else None
        self._to_tensorboard(lambda writer: None)
        self.run_texts = 0
        self.run_cut_texts = 0
        self.damaged_blocks = 0
        self._start_interval()

    def cut_share(self) -> str:
        """How many of the run's texts were longer than the limits, in words. Collective."""
        cut, texts = sum_over_ranks(
            torch.tensor([self.run_cut_texts, self.run_texts], dtype=torch.float64, device=group_device())
        ).tolist()
        return f"{100 * cut / max(1.0, texts):.1f} % of the texts read were cut at the limits"

    def _start_interval(self) -> None:
        self.since_s = time.perf_counter()
        self.lag.begin()
        self.steps = 0
        self.pairs = 0
        self.tokens = 0
        self.texts = 0
        self.cut_texts = 0
        self.data_wait_s = 0.0
        self.by_source: dict[str, SourceCounts] = {}

    def count(self, batch: RankBatch, data_wait_s: float) -> None:
        """Note one step's work of this rank."""
        self.steps += 1
        self.pairs += len(batch)
        self.tokens += batch.real_tokens
        self.texts += len(batch.queries) + len(batch.passages)
        self.cut_texts += batch.cut_texts
        self.data_wait_s += data_wait_s
        for name, counts in batch.by_source.items():
            self.by_source[name] = SourceCounts(*map(sum, zip(self.by_source.get(name, NONE), counts, strict=True)))
        self.run_texts += len(batch.queries) + len(batch.passages)
        self.run_cut_texts += batch.cut_texts

    def is_due(self, step: int) -> bool:
        return step % self.log_every == 0 or step == self.total_steps

    def log(
        self,
        step: int,
        report: StepReport,
        spread: dict[str, Spread],
        relative_update: dict[str, float],
        gradient_norm: float,
        learning_rate: float,
        epochs: dict[str, float],
    ) -> None:
        """Write the figures after `step` steps. Collective: counts are summed over ranks.

        `spread` is of the batch's embeddings by side; `relative_update` is the RMS of the last change of parameters
        over their own, by kind of parameter; `epochs` are passes over all data, under "", and over each source.
        """
        figures = {
            "loss/contrastive": report.score.loss,
            "quality/in_batch_accuracy_percent": 100 * report.score.accuracy,
            "quality/in_batch_mrr": report.score.reciprocal_rank,
            "quality/positive_similarity": report.score.positive_similarity,
            "quality/negative_similarity": report.score.negative_similarity,
            **{f"quality/mean_cosine_of_{side}": figures.mean_cosine for side, figures in spread.items()},
            **{f"quality/effective_rank_of_{side}": figures.effective_rank for side, figures in spread.items()},
            "optimizer/learning_rate": learning_rate,
            "optimizer/gradient_norm": gradient_norm,
            **{f"update_to_parameter_rms/{kind}": ratio for kind, ratio in relative_update.items()},
            "data/masked_columns_per_query": report.score.masked_per_query,
            **{f"data/epoch/{source}".rstrip("/"): passes for source, passes in epochs.items()},
            **self._sources_since_last_time(),
            **self._work_since_last_time(report.padding_frac),
            **self.lag.figures(self.steps),
        }
        on_rank_0(lambda: self._write(step, figures))
        if rank() == 0:
            self.say(progress_line(step, self.total_steps, figures))
        if self.lag.remark:
            self.remark(step, self.lag.remark)
        self._start_interval()

    def _work_since_last_time(self, padding_frac: float) -> dict[str, float]:
        """Rates and shares over the interval, of all ranks together. Collective."""
        elapsed_s = time.perf_counter() - self.since_s
        own = [self.pairs, self.tokens, self.texts, self.cut_texts, self.data_wait_s, padding_frac, memory_gib()]
        pairs, tokens, texts, cut, waiting_s, padding, memory, damaged = sum_over_ranks(
            torch.tensor([*own, self.damaged_blocks], dtype=torch.float64, device=group_device())
        ).tolist()
        return {
            "speed/pairs_per_s": pairs / elapsed_s,
            "speed/tokens_per_s": tokens / elapsed_s,
            "speed/step_s": elapsed_s / max(1, self.steps),
            "data/padding_percent": 100 * padding / world_size(),
            "data/waiting_percent": 100 * waiting_s / (elapsed_s * world_size()),
            "data/cut_texts_percent": 100 * cut / max(1, texts),
            "data/damaged_blocks": damaged,
            "memory/peak_gib_all_ranks": memory,
        }

    def _sources_since_last_time(self) -> dict[str, float]:
        """Rows, and texts that were cut, of each source of a mixture over the interval, of all ranks. Collective."""
        if not self.by_source:
            return {}
        own = torch.tensor(list(self.by_source.values()), dtype=torch.float64, device=group_device())
        counts = dict(zip(self.by_source, map(SourceCounts._make, sum_over_ranks(own).tolist()), strict=True))
        rows = {f"data/rows/{name}": count.pairs for name, count in counts.items()}
        cut = {
            f"data/cut_texts_percent/{name}": 100 * count.cut_texts / count.texts
            for name, count in counts.items()
            if count.texts
        }
        return {**rows, **cut}

    def _write(self, step: int, figures: dict[str, float]) -> None:
        line = json.dumps({"step": step, "time_s": round(time.time(), 3), **figures})
        if self.disk.takes(lambda: append_line(self.folder / FIGURES, line)):
            self._add(lambda writer: [writer.add_scalar(*item, step) for item in figures.items()])
            self.disk.takes(lambda: self.lag.write(self.folder / RANKS, step))

    def _to_tensorboard(self, write: Callable[[Any], object]) -> None:
        """Do `write` with the writer of event files, on rank 0. Collective."""
        on_rank_0(lambda: self._add(write))

    def _add(self, write: Callable[[Any], object]) -> None:
        """Write and flush; a writer that met a full disk is done for, and the next time there is a new one."""

        def flushed() -> None:
            if self.writer is None:
                self.writer = open_writer(self.folder / TENSORBOARD, self.purge_step)
            write(self.writer)
            self.writer.flush()
            self.purge_step = None

        if not self.disk.takes(flushed):
            self.writer = None

    def remark(self, step: int, words: str) -> None:
        """Say something that happened, on the terminal and in TensorBoard's text."""
        self.say(f"step {step}: {words}")
        self._to_tensorboard(lambda writer: writer.add_text("remarks", words, step))

    def rewind(self, step: int, words: str) -> None:
        """Go on as if the steps after `step` had not been; TensorBoard forgets their points."""
        self.remark(step, words)
        self.close()
        self.purge_step = step + 1
        self._to_tensorboard(lambda writer: None)
        self._start_interval()

    def introduce(self, recipe: Recipe) -> None:
        """Write what TensorBoard shows beside curves: layout, hyper-parameters, recipe, provenance."""
        self._to_tensorboard(lambda writer: introduce(writer, recipe, read_json_object(self.folder / RUN)))

    def close(self) -> None:
        """End the event file; a later remark would begin another."""
        writer, self.writer = self.writer, None
        on_rank_0(lambda: self.disk.takes(writer.close) if writer is not None else None)


def progress_line(step: int, total_steps: int, figures: dict[str, float]) -> str:
    left_s = (total_steps - step) * figures["speed/step_s"]
    return (
        f"step {step}/{total_steps}  loss {figures['loss/contrastive']:.3f}  "
        f"in-batch accuracy {figures['quality/in_batch_accuracy_percent']:.0f} %  "
        f"{figures['speed/pairs_per_s']:.0f} pairs/s  waiting for data {figures['data/waiting_percent']:.1f} %  "
        f"{duration(left_s)} left"
    )


def memory_gib() -> float:
    """Peak memory of this rank: of its GPU, or of its process without one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
