"""What TensorBoard shows of a run beside its curves: the few that matter on one page, hyper-parameters, and text."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from largede.config.load import recipe_to_yaml
from largede.config.recipe import Recipe
from largede.files import is_no_room
from largede.runs.redact import shareable
from largede.training.agreement import dotted_settings

# A page of the few figures to look at first: chart to tags, as regular expressions.
LAYOUT: dict[str, dict[str, list[str]]] = {
    "learning": {
        "loss": ["loss/contrastive"],
        "in-batch accuracy, percent": ["quality/in_batch_accuracy_percent"],
        "learning rate": ["optimizer/learning_rate"],
        "gradient norm": ["optimizer/gradient_norm"],
    },
    "evaluation (largede watch)": {
        "nDCG@10, dense, mean over the collections": [r"^evaluation/ndcg@10$"],
        "nDCG@10, dense": [r"^evaluation/ndcg@10/.*"],
        "nDCG@10, fused": [r"^evaluation_fused/ndcg@10/.*"],
        "nDCG@10, BM25": [r"^evaluation_bm25/ndcg@10/.*"],
    },
    "do the embeddings collapse?": {
        "mean cosine of unrelated texts": [r"quality/mean_cosine_of_.*"],
        "effective rank": [r"quality/effective_rank_of_.*"],
        "similarity of positives and negatives": [r"quality/(positive|negative)_similarity"],
    },
    "what it costs": {
        "pairs per second": ["speed/pairs_per_s"],
        "waiting for data and padding, percent": [r"data/(waiting|padding)_percent"],
        "peak memory of all ranks, GiB": ["memory/peak_gib_all_ranks"],
        "a rank's own work, seconds per step": [r"ranks/work_s_.*"],
        "a rank's waiting in collectives, seconds per step": [r"ranks/collectives_s_.*"],
    },
}

# The settings that people vary, and what runs are compared by.
VARIED = (
    "model.backbone",
    "model.layout",
    "model.similarity",
    "model.dropout",
    "data.max_query_tokens",
    "data.max_passage_tokens",
    "data.hard_negatives",
    "data.seed",
    "batch.queries",
    "loss.temperature",
    "loss.passage_to_query",
    "loss.mask_duplicates",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.warmup_steps",
    "optimizer.clip_norm",
    "engine.deepspeed",
    "run.steps",
    "run.start_from",
)
COMPARED = ("loss/contrastive", "quality/in_batch_accuracy_percent", "evaluation/ndcg@10", "evaluation/recall@100")


def open_writer(folder: Path, purge_step: int | None) -> Any:
    """A writer of event files; TensorBoard forgets the points from `purge_step` on."""
    from torch.utils.tensorboard import SummaryWriter

    if threading.excepthook is not _leave_out_what_is_raised_again:
        threading.excepthook = _leave_out_what_is_raised_again
    return SummaryWriter(str(folder), purge_step=purge_step)


_show_thread_error = threading.excepthook


def _leave_out_what_is_raised_again(args: threading.ExceptHookArgs) -> None:
    """What TensorBoard's thread meets on a full disk comes out of the next flush: no need for its traceback as well."""
    is_of_writer = type(args.thread).__name__ == "_AsyncWriterThread"
    if not (is_of_writer and isinstance(args.exc_value, Exception) and is_no_room(args.exc_value)):
        _show_thread_error(args)


def introduce(writer: Any, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Write layout, hyper-parameters and text at the beginning of a part; `facts` are what run.json says.

    Figures beside the hyper-parameters are not copied: TensorBoard takes the newest value of each tag of COMPARED,
    be it written here or by `largede watch`.
    """
    from torch.utils.tensorboard.summary import custom_scalars, hparams

    lines = {page: {name: ["Multiline", tags] for name, tags in charts.items()} for page, charts in LAYOUT.items()}
    writer.file_writer.add_summary(custom_scalars(lines))
    for summary in hparams(hyper_parameters(recipe, facts), dict.fromkeys(COMPARED, 0.0))[:2]:
        writer.file_writer.add_summary(summary)
    writer.add_text("recipe", indented(recipe_to_yaml(shareable(recipe))))
    writer.add_text("provenance", indented(json.dumps(facts, indent=1, ensure_ascii=False)), facts.get("from_step", 0))
    writer.flush()


def hyper_parameters(recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, float | str]:
    """As the plugin takes them: numbers and texts; a setting that is empty is the text `none`."""
    settings = dotted_settings(shareable(recipe))
    values = {name: settings[name] for name in VARIED}
    values |= {"ranks": facts["world_size"], "data": facts["data_fingerprint"][:8]}
    return {name: value if type(value) in (int, float, str) else _in_a_word(value) for name, value in values.items()}


def _in_a_word(value: object) -> str:
    return {None: "none", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[call-overload]


def indented(text: str) -> str:
    """As Markdown shows it letter by letter."""
    return "    " + text.replace("\n", "\n    ")
