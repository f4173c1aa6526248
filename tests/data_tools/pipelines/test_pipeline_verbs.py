"""The flags of `filter`, `dedup` and `decontaminate` against the settings they stand for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from beir_folder import write_collection

from data_tools.pipelines import job
from data_tools.pipelines.decontaminate import DecontaminateSettings
from data_tools.pipelines.dedup import DedupSettings
from data_tools.pipelines.filters import FilterSettings
from data_tools.pipelines.job import Plan
from data_tools.pipelines.verbs import PIPELINE_VERBS
from largede.verbs import build_parser

DEFAULTS: dict[str, Any] = {
    "filter": FilterSettings(),
    "dedup": DedupSettings(),
    "decontaminate": DecontaminateSettings(),
}


def settings_of(line: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the plan that a command line would run."""
    plans: list[Plan] = []
    monkeypatch.setattr(job, "run_plan", lambda plan, *others: plans.append(plan))
    args = build_parser("largede-data", "", PIPELINE_VERBS).parse_args(line.split())
    args.run(args)
    return plans[0].settings


@pytest.fixture
def against(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "beir")


def json_of(settings: Any) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


@pytest.mark.parametrize("verb", DEFAULTS)
def test_without_flags_the_settings_are_their_defaults(
    verb: str, against: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = f" --against {against}" if verb == "decontaminate" else ""
    found = settings_of(f"{verb} pairs --out out{required}", monkeypatch)
    defaults = json_of(DEFAULTS[verb])
    assert {name: found[name] for name in defaults} == defaults


FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "filter": (
        "--min-letters 0.1 --max-links 0.2 --max-repeated-lines 0.3 --languages en de en --keep-boilerplate",
        {
            "min_letters": 0.1,
            "max_links": 0.2,
            "max_repeated_lines": 0.3,
            "languages": ["de", "en"],
            "boilerplate": False,
        },
    ),
    "dedup": (
        "--query-similarity 0.9 --passage-similarity 0.6 --query-hashes 4 --passage-hashes 5 --seed 7",
        {"query_similarity": 0.9, "passage_similarity": 0.6, "query_hashes": 4, "passage_hashes": 5, "seed": 7},
    ),
    "decontaminate": (
        "--ngram 12 --shortest-run 7 --shortest-query 5 --queries-only",
        {"ngram": 12, "shortest_run": 7, "shortest_query": 5, "queries_only": True},
    ),
}


@pytest.mark.parametrize("verb", FLAGS)
def test_a_flag_sets_what_has_its_name(verb: str, against: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, expected = FLAGS[verb]
    required = f" --against {against}" if verb == "decontaminate" else ""
    found = settings_of(f"{verb} pairs --out out {flags}{required}", monkeypatch)
    assert {name: found[name] for name in expected} == expected
