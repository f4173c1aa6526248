"""Model cards: a header that parses, figures of the watch, where everything came from, and nothing that escapes."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from largede.config.load import load_recipe, with_settings
from largede.config.recipe import Recipe
from largede.errors import DataError
from largede.runs.evaluated import Evaluated
from largede.training.checkpoints.state import CheckpointState
from largede.training.model_card import model_card, plain

EVALUATED = Evaluated(
    step=40,
    checkpoint="step-00000040",
    metric="ndcg@10",
    value=0.25,
    figures={"med": {"dense": {"ndcg@10": 0.2, "mrr@10": 0.4}}, "cran|field": {"dense": {"ndcg@10": 0.3}}},
    fingerprint=hashlib.sha256(b"{}").hexdigest(),
    time=0.0,
)


def card_of(tmp_path: Path, run: dict[str, Any] | None = None, **dotted: Any) -> str:
    recipe = with_settings(Recipe(), **dotted)
    versions = {"largede": "0.1.0, commit abcdef", "torch": "2.13.0"}
    state = CheckpointState(40, 40, asdict(recipe), "f00d", {}, versions, {})
    folder = tmp_path / "run" / "checkpoints" / "step-00000040"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    for name, value in (run or {}).items():
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return model_card(folder, state, "bfloat16")


def header_of(card: str) -> dict[str, Any]:
    nothing, header, _ = card.split("---\n", 2)
    assert nothing == ""
    return yaml.safe_load(header)


def recipe_in(card: str, tmp_path: Path) -> Recipe:
    fenced = card.split("</summary>\n\n", 1)[1].rpartition("\n\n</details>\n")[0]
    fence = fenced.split("yaml\n")[0]
    assert set(fence) == {"`"} and fenced.endswith(f"\n{fence}") and fenced.count(fence) == 2
    (tmp_path / "recipe.yaml").write_text(fenced.removeprefix(f"{fence}yaml\n").removesuffix(fence))
    return load_recipe(tmp_path / "recipe.yaml")


def test_the_header_names_libraries_and_the_model_it_began_with(tmp_path: Path) -> None:
    header = header_of(card_of(tmp_path, model__backbone="google-t5/t5-base"))
    assert header["library_name"] == "sentence-transformers" and header["pipeline_tag"] == "sentence-similarity"
    assert header["base_model"] == "google-t5/t5-base" and "sentence-similarity" in header["tags"]
    assert "base_model" not in header_of(card_of(tmp_path / "shape", model__backbone="gtr-base"))
    assert "base_model" not in header_of(card_of(tmp_path / "folder", model__backbone=str(tmp_path)))


def test_figures_stand_by_data_set(tmp_path: Path) -> None:
    card = card_of(tmp_path, {"evaluations/step-00000040.json": asdict(EVALUATED)})
    assert "judges by ndcg@10, on average 0.2500" in card
    assert "| data set | system | ndcg@10 | mrr@10 |\n|---|---|---|---|\n| med | dense | 0.2000 | 0.4000 |\n" in card
    assert r"| cran\|field | dense | 0.3000 |  |" in card
    assert "## Figures" not in card_of(tmp_path / "unwatched")
    of_another = asdict(replace(EVALUATED, fingerprint="of the same step before a rewind"))
    assert "## Figures" not in card_of(tmp_path / "again", {"evaluations/step-00000040.json": of_another})


def test_it_says_what_it_was_made_from_and_with(tmp_path: Path) -> None:
    sources = {"forum": {"shards": "/data/forum", "weight": 3.0}, "search": {"shards": "s3://pairs/b", "weight": 1.0}}
    run = {"run.json": {"largede": "0.1.0, commit 123456", "hardware": "2 CPU cores"}}
    card = card_of(tmp_path, run, data__sources=sources, run__start_from="/runs/first")
    assert "`f00d`" in card and "81,920 rows" in card and "| search | s3://pairs/b | 1 |" in card
    assert "commit abcdef" in card and "torch 2.13.0" in card and "commit 123456" in card and "2 CPU cores" in card
    assert "these files are bfloat16" in card and "weights of another: /runs/first" in card


def test_the_recipe_in_it_is_the_recipe(tmp_path: Path) -> None:
    recipe = recipe_in(card_of(tmp_path, batch__queries=512, data__query_prefix="````\n</details>"), tmp_path)
    assert recipe == with_settings(Recipe(), batch__queries=512, data__query_prefix="````\n</details>")


def test_what_users_write_is_shown_and_does_nothing(tmp_path: Path) -> None:
    card = card_of(tmp_path, model__backbone="<script>\n# heading `[x](y)", data__shards="a|b*c*")
    said = card.split("<details>")[0]
    assert "<script>" not in said and "\n# heading" not in said
    assert r"&lt;script&gt; # heading \`\[x\](y)" in said and r"a\|b\*c\*" in said


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("https://me:hunter2@host/a?token=hunter2", "https://[hidden]@host/a?[hidden]"),
        ("pipe:curl -H 'key: hunter2' {name}", "pipe: a command"),
    ],
)
def test_secrets_in_addresses_are_left_out(place: str, shown: str, tmp_path: Path) -> None:
    card = card_of(tmp_path, data__shards=place)
    assert "hunter2" not in card and f"Pairs from {plain(shown)}." in card
    assert recipe_in(card, tmp_path).data.shards == shown


def test_a_damaged_file_of_the_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run.json cannot be read"):
        card_of(tmp_path, {"run.json": "{"})


@pytest.mark.parametrize(
    ("layout", "said"), [("sde", 'SentenceTransformer("this folder")'), ("ade", "this folder/query")]
)
def test_it_shows_how_to_load_the_layout(layout: str, said: str, tmp_path: Path) -> None:
    assert said in card_of(tmp_path, model__layout=layout)
