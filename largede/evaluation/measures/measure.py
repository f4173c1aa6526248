"""`largede measure`: figures of runs that lie there as TREC files, whoever made them, and which of them is better."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.evaluation.measures.metrics import MEASURES, PerQuery, interval, per_query
from largede.evaluation.measures.significance import Difference, compare, holm
from largede.retrieval.qrels import read_qrels
from largede.retrieval.runs import Run, read_run


@dataclass(frozen=True)
class MeasuredRun:
    """The figures of one run file; `missing` judged queries are not in it and count as zero."""

    name: str
    values: PerQuery
    missing: int


def measure_run(
    run_path: Path, qrels_path: Path, measures: Sequence[str] = MEASURES, relevant_from: int = 1
) -> PerQuery:
    """What `per_query` finds for two files. Raises DataError as `read_run`, `read_qrels` and `per_query` do."""
    return measure_runs([run_path], qrels_path, measures, relevant_from)[0].values


def measure_runs(
    run_paths: Sequence[Path],
    qrels_path: Path,
    measures: Sequence[str] = MEASURES,
    relevant_from: int = 1,
    depth: int | None = None,
) -> list[MeasuredRun]:
    """Every run on the same judgements; with a `depth`, only the first so many documents of each list."""
    if len(set(run_paths)) < len(run_paths):
        raise DataError("a run file given twice", expected="each run once", mend="leave one out")
    qrels = read_qrels(qrels_path)
    short = len({path.name for path in run_paths}) == len(run_paths)
    found = []
    for path in run_paths:
        run = _read_run(path, depth)
        try:
            values = per_query(run, qrels, measures, relevant_from)
        except DataError as error:
            said = f"{path} measured with {qrels_path}: {error.given}"
            raise DataError(said, expected=error.expected, mend=error.mend) from None
        found.append(MeasuredRun(path.name if short else str(path), values, len(qrels.keys() - run.keys())))
    return found


def compare_runs(runs: Sequence[MeasuredRun], seed: int = 0) -> dict[str, list[tuple[Difference, float]]]:
    """By measure: every run but the first minus the first, with p_t corrected over these runs (Holm)."""
    first, *others = runs
    found = {}
    for measure, values in first.values.items():
        compared = [compare(other.values[measure], values, seed) for other in others]
        found[measure] = list(zip(compared, holm([one.p_t for one in compared]), strict=True))
    return found


def as_table(runs: Sequence[MeasuredRun]) -> str:
    """Means with 95 % intervals, then differences to the first run."""
    measures = list(runs[0].values)
    judged = len(runs[0].values[measures[0]])
    rows = [["run", *measures]]
    for run in runs:
        figures = (interval(run.values[measure]) for measure in measures)
        rows.append([run.name, *(f"{f.mean:.4f} ({f.low:.3f} to {f.high:.3f})" for f in figures)])
    lines = [f"{judged:,} judged queries; in brackets 95 % bootstrap intervals", *_aligned(rows)]
    lines += [f"{run.name} lacks {run.missing:,} of them: zero in every measure" for run in runs if run.missing]
    if len(runs) > 1:
        lines += ["", f"minus {runs[0].name}", *_aligned(_difference_rows(runs))]
    return "\n".join(lines)


def as_json(runs: Sequence[MeasuredRun]) -> dict[str, Any]:
    """Everything: figures, differences, and every query."""
    return {
        "runs": {
            run.name: {
                "missing": run.missing,
                "figures": {measure: asdict(interval(values)) for measure, values in run.values.items()},
                "per_query": run.values,
            }
            for run in runs
        },
        "differences": {
            measure: [
                {"one": run.name, "other": runs[0].name, **asdict(difference), "p_holm": corrected}
                for run, (difference, corrected) in zip(runs[1:], compared, strict=True)
            ]
            for measure, compared in compare_runs(runs).items()
        },
    }


def _read_run(path: Path, depth: int | None) -> Run:
    run = read_run(path)
    if not run:
        raise DataError(f"the run file {path} is empty", expected="ranked lists", mend="check how it was made")
    return run if depth is None else {query: ranking.top(depth) for query, ranking in run.items()}


def _difference_rows(runs: Sequence[MeasuredRun]) -> list[list[str]]:
    rows = [["run", "measure", "difference", "95 % interval", "p (bootstrap)", "p (t-test)", "p (t-test, Holm)"]]
    for measure, compared in compare_runs(runs).items():
        for run, (found, corrected) in zip(runs[1:], compared, strict=True):
            numbers = [found.p_bootstrap, found.p_t, corrected]
            spread = f"{found.low:+.4f} to {found.high:+.4f}"
            rows.append([run.name, measure, f"{found.mean:+.4f}", spread, *(f"{p:.4f}" for p in numbers)])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
