"""The evaluations of a run in its TensorBoard: scalars, histograms, pictures, a table, and points for the projector.

One event file holds all of them, by step, and is written anew when a record is added: TensorBoard shows a series as
it comes, and drops what it has of later steps when an earlier one arrives, so files written by several watchers, or
out of order, would lose points. The name carries a fingerprint of the records: a watcher that was killed in between
is noticed by the next. It sorts before the files of the trainer, for a TensorBoard without its fast loader reads one
file of a folder after the other and stays with the last.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from largede.evaluation.watching.pictures import curve_png
from largede.files import fingerprint_of, write_text, writing
from largede.runs.claims import Claim
from largede.runs.evaluated import LABELS, PICTURES, POINTS, Evaluated, best_of, mark_best, read_records
from largede.runs.files import EVALUATION_EVENTS, EVALUATIONS, TENSORBOARD

WITH_PICTURES = 10
PROJECTOR = "projector"


def publish(run: Path) -> list[Evaluated]:
    """Bring TensorBoard's folder and best.json up to the records, if they are not; gives the records."""
    records = read_records(run)
    if not records or is_published(run, records):
        return records
    claim = Claim(run / EVALUATIONS / "board.hold")
    claim.take_in_turn()
    try:
        records = read_records(run)  # others may have added some while they held the claim
        mark_best(run, records)
        write_projector(run, records)
        write_events(run, records)
    finally:
        claim.release()
    return records


def is_published(run: Path, records: Sequence[Evaluated]) -> bool:
    """The event file is the last that is written, and then the only one."""
    return list(event_path(run, records).parent.glob(f"{EVALUATION_EVENTS}.*")) == [event_path(run, records)]


def write_events(run: Path, records: Sequence[Evaluated]) -> None:
    path, unnamed = event_path(run, records), run / EVALUATIONS / "board.unnamed"
    with writing(unnamed) as stream:
        for event in events_of(run, records):
            stream.write(framed(event.SerializeToString()))
    os.replace(unnamed, path)  # TensorBoard would read it half-written, had it been written in its folder
    for other in path.parent.glob(f"{EVALUATION_EVENTS}.*"):
        if other != path:
            other.unlink(missing_ok=True)


def event_path(run: Path, records: Sequence[Evaluated]) -> Path:
    known = fingerprint_of([[record.checkpoint, record.fingerprint, record.time] for record in records])
    return run / TENSORBOARD / f"{EVALUATION_EVENTS}.evaluations.{known[:12]}"


def events_of(run: Path, records: Sequence[Evaluated]) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    yield Event(wall_time=records[0].time, file_version="brain.Event:2")
    with_picture = {record.step for record in records[-WITH_PICTURES:]}
    for record in records:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars_of(record).items()]
        values += list(histograms_of(record))
        if record.step in with_picture:
            values += pictures_of(run, record)
        yield Event(wall_time=record.time, step=record.step, summary=Summary(value=values))
    last = records[-1]
    values = [image(f"evaluation/curve/{name}", curve_png(records, name)) for name in last.figures]
    values.append(text("evaluation/checkpoints", table_of(records)))
    yield Event(wall_time=last.time, step=last.step, summary=Summary(value=values))


def scalars_of(record: Evaluated) -> dict[str, float]:
    """`evaluation/ndcg@10` and by collection `evaluation/ndcg@10/NAME`; other lists as `evaluation_bm25/…`."""
    found: dict[str, float] = {}
    for collection, systems in record.figures.items():
        for system, measured in systems.items():
            group = "evaluation" if system == "dense" else f"evaluation_{system}"
            found |= {f"{group}/{measure}/{collection}": value for measure, value in measured.items()}
    measures = next(iter(record.figures.values()))["dense"]
    return {f"evaluation/{measure}": record.mean("dense", measure) for measure in measures} | found


def histograms_of(record: Evaluated) -> Iterator[Any]:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    for collection, spread in record.scores.items():
        edges = spread["edges"]
        for kind in ("relevant", "other"):
            counts = spread[kind]
            middles = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
            histogram = HistogramProto(
                min=edges[0],
                max=edges[-1],
                num=sum(counts),
                sum=sum(c * m for c, m in zip(counts, middles, strict=True)),
                sum_squares=sum(c * m * m for c, m in zip(counts, middles, strict=True)),
                bucket_limit=edges[1:],
                bucket=counts,
            )
            yield Summary.Value(tag=f"evaluation_scores/{kind}/{collection}", histo=histogram)


def pictures_of(run: Path, record: Evaluated) -> list[Any]:
    found = sorted((run / EVALUATIONS / record.checkpoint / PICTURES).glob("*.png"))
    return [image(f"evaluation/scores/{path.stem}", path.read_bytes()) for path in found]


def image(tag: str, png: bytes) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])
    picture = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=picture)


def text(tag: str, markdown: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[markdown.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return Summary.Value(tag=f"{tag}/text_summary", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)


def table_of(records: Sequence[Evaluated]) -> str:
    """Every checkpoint with its value and its figures by collection, the best one marked."""
    best = best_of(records)
    collections = list(records[-1].figures)
    metric = records[-1].metric
    head = ["checkpoint", f"{metric} (mean)", *(f"{name}: nDCG@10" for name in collections), "seconds"]
    rows = []
    for record in records:
        shown = [f"{record.figures.get(name, {}).get('dense', {}).get('ndcg@10', 0):.4f}" for name in collections]
        name = f"**{record.checkpoint} (best)**" if record == best else record.checkpoint
        rows.append([name, f"{record.value:.4f}", *shown, f"{record.took_s:.0f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def framed(content: bytes) -> bytes:
    """One record as event files frame it: length, its checksum, content, its checksum."""
    from tensorboard.summary.writer.record_writer import masked_crc32c

    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))


def write_projector(run: Path, records: Sequence[Evaluated]) -> None:
    """Let the projector show the points of the newest and of the best checkpoint.

    TensorBoard reads points only from below its own folder, so they are copied there; all others are removed.
    """
    best, shown = best_of(records), run / TENSORBOARD / PROJECTOR
    marks = {records[-1].checkpoint: "newest"}
    if best is not None:
        marks[best.checkpoint] = "newest and best" if best.checkpoint in marks else "best"
    entries = []
    for record in records:
        for kind in (POINTS, LABELS):
            made, copy = run / EVALUATIONS / record.checkpoint / kind, shown / f"{record.checkpoint}.{kind}"
            if record.checkpoint not in marks:
                made.unlink(missing_ok=True)
                copy.unlink(missing_ok=True)
            elif made.is_file():
                with writing(copy) as stream:
                    stream.write(made.read_bytes())
        if (shown / f"{record.checkpoint}.{LABELS}").is_file():
            entries.append(_projector_entry(record.checkpoint, marks[record.checkpoint]))
    write_text(run / TENSORBOARD / "projector_config.pbtxt", "".join(entries))


def _projector_entry(checkpoint: str, mark: str) -> str:
    values = {
        "tensor_name": f"{checkpoint} ({mark})",
        "tensor_path": f"{PROJECTOR}/{checkpoint}.{POINTS}",
        "metadata_path": f"{PROJECTOR}/{checkpoint}.{LABELS}",
    }
    return "embeddings {\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in values.items()) + "}\n"
