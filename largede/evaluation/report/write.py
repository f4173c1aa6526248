"""The files of a report, and reading them back without the data being there.

results.json   the figures
page.json      what the page shows beyond them: example searches and training curves
report.html, report.md
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.evaluation.report.curves import Curves
from largede.evaluation.report.examples import Example, examples_as_json, examples_from_json
from largede.evaluation.report.markdown import render_markdown
from largede.evaluation.report.page import render_report
from largede.files import read_json_object, write_json, write_text

NAMES = ("results.json", "page.json", "report.md", "report.html")

_EXPECTED = frozenset(
    {"title", "measures", "systems", "datasets", "groups", "averages", "indexes", "about", "settings"}
)


def write_report(out: Path, results: Mapping[str, Any], examples: Sequence[Example], curves: Curves) -> None:
    """Write all files of a report into a folder, the page last."""
    page, tables = render_report(results, examples, curves), render_markdown(results, examples)
    write_json(out / "results.json", results)
    write_json(out / "page.json", {"examples": examples_as_json(examples), "curves": curves})
    write_text(out / "report.md", tables)
    write_text(out / "report.html", page)


def read_report(folder: Path) -> tuple[dict[str, Any], list[Example], Curves]:
    """What `write_report` wrote; without page.json there are no examples and no curves.

    Raises DataError: no results.json, a damaged one, one of a largede that wrote less.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(
            f"{folder} has no results.json", expected="the --out folder of an evaluation", mend="evaluate first"
        )
    results = read_json_object(path)
    missing = sorted(_EXPECTED - results.keys())
    if missing or not results["datasets"]:
        raise DataError(
            f"{path} lacks {', '.join(missing) or 'any collection'}",
            expected="what this version of largede writes",
            mend="run the same `largede evaluate` again: what is computed already is kept",
        )
    extra = read_json_object(folder / "page.json") if (folder / "page.json").is_file() else {}
    curves = {tag: [(step, value) for step, value in points] for tag, points in extra.get("curves", {}).items()}
    return results, examples_from_json(extra.get("examples", [])), curves
