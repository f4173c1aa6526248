"""Recipes: what is loaded, what is refused and how it is said."""

from dataclasses import FrozenInstanceError
from importlib import resources
from pathlib import Path

import pytest

from largede.config.batch import BatchPlan
from largede.config.load import load_recipe, parse_overrides, recipe_to_yaml, with_settings
from largede.config.recipe import Recipe, describe_settings
from largede.errors import RecipeError

SHIPPED = sorted(p.name for p in Path(str(resources.files("largede.recipes"))).glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert load_recipe(written(tmp_path, recipe_to_yaml(recipe))) == recipe


def test_flags_win_over_the_file_and_take_both_forms(tmp_path: Path) -> None:
    path = written(tmp_path, "batch: {queries: 64}\noptimizer: {learning_rate: 1e-3}\n")
    recipe = load_recipe(path, ["--batch.queries", "128", "--data.lanes=16", "--batch.no_grad_chunk_tokens", "null"])
    assert (recipe.batch.queries, recipe.data.lanes, recipe.optimizer.learning_rate) == (128, 16, 0.001)
    assert recipe.batch.no_grad_chunk_tokens is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("pipe:curl -H 'X: y' https://host/{name} # all", "pipe:curl -H 'X: y' https://host/{name} # all"),
        ("[a, b]", "[a, b]"),
        ("0070", "0070"),
        ("'query: '", "query: "),
        ('"a" b', '"a" b'),
        ("'unclosed", "'unclosed"),
    ],
)
def test_a_text_on_the_command_line_is_taken_as_it_is(text: str, meant: str) -> None:
    for name in ("data.query_prefix", "data.shards"):
        recipe = load_recipe("mini", [f"--{name}", text])
        assert (recipe.data.query_prefix if name == "data.query_prefix" else recipe.data.shards) == meant
    mixed = load_recipe("mini", ["--data.sources.a.shards", text, "--data.sources.b.shards", "b"])
    assert mixed.data.sources["a"].shards == meant
    assert load_recipe("mini", ["--run.start_from", "null"]).run.start_from is None
    assert load_recipe("mini", ["--data.shards", ""]).data.shards == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch: {querys: 64}", "did you mean batch.queries"),
        ("bach: {queries: 64}", "did you mean batch"),
        ("batch: 64", "a group of settings"),
        ("- 1", "holds a list"),
        ("a: [", "is not YAML"),
        ("batch: {queries: many}", "batch.queries is 'many'"),
        ("batch: {queries: 1.5}", "a value of type int"),
        ("batch: {gradient_cache: 1}", "a value of type bool"),
        ("model: {layout: siamese}", "one of sde, ade"),
        ("loss: {temperature: .inf}", "loss.temperature is inf"),
        ("optimizer: {learning_rate: .nan}", "optimizer.learning_rate is nan"),
        ("loss: {temperature: 0}", "loss.temperature is 0.0"),
        ("model: {dropout: 1.0}", "model.dropout is 1.0"),
        ("batch: {queries: 100}", "divisors of 100"),
        ("batch: {chunk_tokens: 100}", "holds less than one sequence of 512 tokens"),
        ("optimizer: {weight_decay: 0.1}", "optimizer.name adamw"),
        ("optimizer: {warmup_steps: 30000}", "exceeds run.steps"),
        ("run: {steps: -1}", "run.steps is -1"),
        ("data: {refresh_steps: 0, hard_negatives: 1}", "data.refresh_steps is 0"),
        ("data: {refresh_steps: 100}", "data.hard_negatives 0"),
        (
            "data: {refresh_steps: 9, hard_negatives: 1, sources: {a: {shards: x}, b: {shards: y}}}",
            "data.refresh_steps is 9 with data.sources",
        ),
    ],
)
def test_impossible_recipes_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(written(tmp_path, text))
    assert said in str(refused.value)
    assert "expected:" in str(refused.value) and "to mend:" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stray"], "stray word"),
        (["--batch.queries"], "has no value"),
        (["--queries", "5"], "did you mean batch.queries"),
        (["--run.stpes", "5"], "did you mean run.steps"),
    ],
)
def test_impossible_flags_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", words)


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="quickstart"):
        load_recipe("no-such")


def test_overrides_are_parsed_in_order() -> None:
    assert parse_overrides(["--a.b", "1", "--c.d=x=y"]) == [("a.b", "1"), ("c.d", "x=y")]


def test_a_recipe_is_frozen_and_every_setting_explained() -> None:
    with pytest.raises(FrozenInstanceError):
        Recipe().batch.queries = 1  # type: ignore[misc]
    text = describe_settings()
    assert "batch.queries = 2048" in text
    assert all(line.strip() for line in text.splitlines())


@pytest.mark.parametrize("world", range(1, 10))
def test_every_row_belongs_to_one_rank(world: int) -> None:
    plan = BatchPlan(64, world)
    assert [row for rank in range(world) for row in plan.rows(rank)] == list(range(64))
    numbers = plan.deepspeed_numbers()
    assert numbers["train_batch_size"] == numbers["train_micro_batch_size_per_gpu"] * world


def test_fewer_queries_than_ranks_is_refused() -> None:
    with pytest.raises(RecipeError, match="on 5 ranks"):
        BatchPlan(4, 5)


def test_with_settings_checks_too() -> None:
    with pytest.raises(RecipeError):
        with_settings(Recipe(), loss__temperature=-1)


def test_factors_on_the_rate_come_from_yaml_and_from_flags(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("optimizer:\n  rate_factors:\n    projection: 10\n    embed_tokens: 0\n")
    recipe = load_recipe(path)
    assert list(recipe.optimizer.rate_factors.items()) == [("projection", 10.0), ("embed_tokens", 0.0)]
    again = tmp_path / "again.yaml"
    again.write_text(recipe_to_yaml(recipe))
    assert load_recipe(again) == recipe
    flagged = load_recipe(path, ["--optimizer.rate_factors", "{norm: 2}"])
    assert flagged.optimizer.rate_factors == {"norm": 2.0}
    for wrong in ("{norm: fast}", "[norm]", "{norm: -1}"):
        with pytest.raises(RecipeError, match="rate_factors"):
            load_recipe(path, ["--optimizer.rate_factors", wrong])


def test_sources_come_from_flags_whole_or_by_name_and_survive_a_round_trip(tmp_path: Path) -> None:
    words = ["--data.sources", "{reddit: {shards: a, weight: 3}, marco: {shards: b, max_query_tokens: 9}}"]
    recipe = load_recipe("mini", [*words, "--data.sources.marco.weight", "2", "--batch.queries", "10"])
    assert {name: source.weight for name, source in recipe.data.sources.items()} == {"reddit": 3.0, "marco": 2.0}
    assert list(recipe.data.text_forms) == ["marco", "reddit"]
    assert [form.max_query_tokens for form in recipe.data.text_forms.values()] == [9, 32]
    assert load_recipe(written(tmp_path, recipe_to_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("{a: {shards: x, wieght: 3}}", "did you mean weight"),
        ("{a: 3}", "{shards, weight, max_query_tokens"),
        ("[a]", "a mapping from names to {shards, weight"),
        ("{a: {weight: 3}}", "data.sources.a.shards is empty"),
        ("{a: {shards: x, weight: 1}, b: {shards: y}}", "no weight for b"),
        ("{a: {shards: x, weight: 0}}", "data.sources.a.weight is 0.0"),
        ("{a/b: {shards: x}}", "the name 'a/b'"),
        ("{a: {shards: x, max_passage_tokens: 5000}}", "holds less than one sequence of 5000 tokens"),
    ],
)
def test_impossible_sources_are_refused(sources: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe("mini", ["--data.sources", sources])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "name", ["model.backbone", "model.tokenizer", "engine.deepspeed", "engine.nvme_path", "run.out", "run.start_from"]
)
def test_an_address_is_not_taken_for_a_folder(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} is s3://bucket/x\n  expected: a path of this machine"):
        load_recipe("mini", [f"--{name}", "s3://bucket/x"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--guard.on_hang", "maybe"], "the command line: guard.on_hang is 'maybe'"),
        (["--guard.hang_after_s", ".nan"], "the command line: guard.hang_after_s is nan"),
        (["--guard.on_hanging", "stop"], "the command line: unknown key 'guard.on_hanging'"),
        (["--guards.on_hang", "stop"], "the command line: unknown key 'guards'"),
        (["--run.out", ""], "run.out is empty"),
        (["--run.keep_every", "15", "--run.checkpoint_every", "10"], "run.keep_every is 15, and a checkpoint comes"),
    ],
)
def test_a_wrong_flag_is_not_blamed_on_the_file(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe("mini", words)
    assert str(refused.value).startswith(said)


def test_sources_and_shards_exclude_each_other_and_flags_reach_into_mappings_only() -> None:
    with pytest.raises(RecipeError, match="one of the two"):
        load_recipe("mini", ["--data.shards", "b", "--data.sources.x.shards", "s"])
    with pytest.raises(RecipeError, match="expected: --group.key"):
        load_recipe("mini", ["--data.lanes.x", "5"])
    with pytest.raises(RecipeError, match="data.sources is 5"):
        load_recipe("mini", ["--data.sources", "5", "--data.sources.x.shards", "s"])


def test_the_plan_knows_the_longest_texts_of_all_sources() -> None:
    from largede.training.plan import Machine, predict

    words = ["--data.sources", "{a: {shards: x, max_passage_tokens: 100}, b: {shards: y, max_passage_tokens: 400}}"]
    recipe = load_recipe("gtr-base-pretrain", words)
    assert (recipe.data.longest_query_tokens, recipe.data.longest_passage_tokens) == (64, 400)
    alone = load_recipe("gtr-base-pretrain", ["--data.max_passage_tokens", "400"])
    machine = Machine(gpus=8, nodes=1, gpu_gib=80)
    assert predict(recipe, machine).memory_lines() == predict(alone, machine).memory_lines()
