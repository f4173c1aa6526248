"""The model card of an exported checkpoint: what it is, what it was made from and with, how good it was, how to use it.

It is Markdown with a YAML header, as model hubs show it. Everything that a user wrote (names, places, prefixes) is
escaped, and addresses lose what may be a secret.
"""

import html
import re
from pathlib import Path
from typing import Any

import yaml

from largede.config.load import recipe_to_yaml
from largede.config.recipe import Recipe
from largede.files import read_json_object, sha256_file
from largede.models.presets import PRESETS
from largede.runs.evaluated import Evaluated, read_record, record_path
from largede.runs.files import RUN
from largede.runs.redact import shareable, without_secrets
from largede.training.checkpoints.state import STATE_FILE, CheckpointState, recipe_of

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MARKDOWN = re.compile(r"([\\`*_\[\]!|~])")


def model_card(checkpoint: Path, state: CheckpointState, dtype: str) -> str:
    """The whole README.md of an export of `checkpoint`, which may lie in its run's folder or elsewhere."""
    recipe = recipe_of(state)
    run = checkpoint.parent.parent
    parts = [
        f"---\n{yaml.safe_dump(header(recipe), sort_keys=False)}---",
        introduction(recipe, state, dtype),
        how_to_load(recipe),
        figures_part(evaluation_of(checkpoint)),
        data_part(recipe, state),
        limits(recipe),
        origin(state, read_json_object(run / RUN) if (run / RUN).is_file() else {}, checkpoint.name),
        recipe_part(recipe),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def header(recipe: Recipe) -> dict[str, Any]:
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense-retrieval", "dual-encoder"]
    fields: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": [*tags, "largede"],
    }
    backbone = recipe.model.backbone
    if backbone not in PRESETS and HUB_NAME.fullmatch(backbone) and not Path(backbone).exists():
        fields["base_model"] = backbone
    return fields


def introduction(recipe: Recipe, state: CheckpointState, dtype: str) -> str:
    model, batch = recipe.model, recipe.batch
    start = recipe.run.start_from
    return f"""# A dual encoder trained with largede

Backbone {plain(model.backbone)}, layout {model.layout}, {model.embedding_dim} dimensions, {model.similarity}
similarity; {state.step:,} of {recipe.run.steps:,} steps of {batch.queries:,} queries at temperature
{recipe.loss.temperature}, with {recipe.optimizer.name}. {first_weights_of(recipe)}
{f"The run started from the weights of another: {plain(start)}." if start else ""}
Queries were cut at {recipe.data.longest_query_tokens} tokens, passages at {recipe.data.longest_passage_tokens}.
The run's weights are float32; these files are {dtype}."""


def first_weights_of(recipe: Recipe) -> str:
    if recipe.model.backbone in PRESETS:
        return "The name is a shape: its first weights were random."
    return "Its first weights were those of the backbone."


def how_to_load(recipe: Recipe) -> str:
    if recipe.model.layout == "sde":
        return """## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this folder")
similarity = model.similarity(model.encode_query(["a question"]), model.encode_document(["a passage"]))
```

The encoder alone, without pooling and projection, is `transformers.AutoModelForTextEncoding`."""
    return """## Use

Queries and passages have towers of their own, which are two models of equal embedding space:

```python
from sentence_transformers import SentenceTransformer

query_tower, passage_tower = SentenceTransformer("this folder/query"), SentenceTransformer("this folder/passage")
query, passage = query_tower.encode_query(["a question"]), passage_tower.encode_document(["a passage"])
similarity = query_tower.similarity(query, passage)
```

The encoders alone, without pooling and projection, are `transformers.AutoModelForTextEncoding`."""


def evaluation_of(checkpoint: Path) -> Evaluated | None:
    """What `largede watch` measured of this very checkpoint; None if nothing, or before the step was trained again."""
    record = read_record(record_path(checkpoint.parent.parent, checkpoint.name))
    return record if record and record.fingerprint == sha256_file(checkpoint / STATE_FILE) else None


def figures_part(evaluation: Evaluated | None) -> str:
    """A line of figures for each data set and system; nothing if there was no evaluation."""
    if evaluation is None:
        return ""
    lines = {(name, system): found for name, systems in evaluation.figures.items() for system, found in systems.items()}
    measures = list(dict.fromkeys(measure for found in lines.values() for measure in found))
    return "\n".join(
        [
            "## Figures",
            "",
            f"Measured by `largede watch`, which judges by {evaluation.metric}, on average {evaluation.value:.4f}.",
            "",
            f"| data set | system | {' | '.join(measures)} |",
            "|---" * (2 + len(measures)) + "|",
            *(
                f"| {plain(name)} | {system} | {' | '.join(_digits(found.get(measure)) for measure in measures)} |"
                for (name, system), found in lines.items()
            ),
        ]
    )


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def data_part(recipe: Recipe, state: CheckpointState) -> str:
    data = recipe.data
    rows = f"{state.step * recipe.batch.queries:,} rows of pairs were read, repetitions included."
    lines = ["## Data", "", f"Fingerprint of the data: `{state.data_fingerprint}`. {rows}", ""]
    if data.sources:
        lines += ["| source | place | weight |", "|---|---|---|"]
        for name, source in sorted(data.sources.items()):
            weight = "by size" if source.weight is None else f"{source.weight:g}"
            lines.append(f"| {plain(name)} | {plain(without_secrets(source.shards))} | {weight} |")
    else:
        lines.append(f"Pairs from {plain(without_secrets(data.shards))}.")
    negatives = data.hard_negatives
    lines += ["", f"Hard negatives of each query: up to {negatives}." if negatives else "No hard negatives."]
    return "\n".join(lines)


def limits(recipe: Recipe) -> str:
    prefixes = recipe.data.query_prefix or recipe.data.passage_prefix
    prompts = (
        " Texts need the prefixes it was trained with, which `encode_query` and `encode_document` put before them."
    )
    return f"""## Intended use and limits

It embeds questions and passages so that a question is near the passages that answer it: for retrieval from a
collection of texts like those it was trained on.{prompts if prefixes else ""} How good it is elsewhere, in other
languages or on longer texts is unknown until it is measured; the languages of the data were not recorded. Like its
data it may be biased or wrong, and being near is no proof that a passage is true. Nothing is known here of the
licence of the data, which may bind the use of the model."""


def origin(state: CheckpointState, run: dict[str, Any], name: str) -> str:
    versions = ", ".join(f"{package} {found}" for package, found in state.versions.items())
    lines = ["## Origin", "", f"Checkpoint {name}, written with {plain(versions)}."]
    for key, words in (("largede", "The run was last started with largede"), ("hardware", "Hardware")):
        if isinstance(run.get(key), str):
            lines.append(f"{words}: {plain(run[key])}.")
    return "\n".join(lines)


def recipe_part(recipe: Recipe) -> str:
    """The resolved recipe, folded; its fence is longer than any run of backticks in it."""
    text = recipe_to_yaml(shareable(recipe))
    fence = "`" * (2 + max((len(run) for run in re.findall("`+", text)), default=1))
    body = f"{fence}yaml\n{text}{fence}"
    return f"<details>\n<summary>The recipe</summary>\n\n{body}\n\n</details>"


def plain(text: str) -> str:
    """A user's text as one line of Markdown that shows it as it is."""
    return html.escape(MARKDOWN.sub(r"\\\1", " ".join(str(text).split())), quote=False)
