"""The formats of `largede-data pairs`, one file each."""

from data_tools.format import Format
from data_tools.readers import (
    beir,
    dpr,
    jsonl,
    msmarco,
    parquet,
    reddit,
    rocketqa,
    sentence_transformers,
    squad,
    stackexchange,
    tevatron,
    tevatron_ids,
)

FORMATS: tuple[Format, ...] = (
    stackexchange.FORMAT,
    reddit.FORMAT,
    msmarco.FORMAT,
    tevatron.FORMAT,
    tevatron_ids.FORMAT,
    sentence_transformers.FORMAT,
    rocketqa.FORMAT,
    dpr.FORMAT,
    squad.FORMAT,
    beir.FORMAT,
    jsonl.FORMAT,
    parquet.FORMAT,
)
