"""The comparison of indexes beside the published one."""

from collections.abc import Mapping
from typing import Any

from largede.evaluation.report.elements import head_row, row_head, table
from largede.evaluation.report.shown import html
from largede.evaluation.results.published import INDEX_HEADS, published_indexes


def indexes(results: Mapping[str, Any]) -> str:
    """What approximate indexes find of what the exact one does, their time and size, beside the published table."""
    rows = results["indexes"]
    if not rows:
        return ""
    cuts = sorted({int(cut) for row in rows for cut in row["recall"]})
    heads = ["", *(f"recall at {cut}" for cut in cuts), "build", "one query", "of a batch", "memory", "disk"]
    body = []
    for row in rows:
        at = f"indexes/{row.get('dataset', '')}/{row['kind']}"
        recall = {int(cut): value for cut, value in row["recall"].items()}
        cells = [f"{recall[cut]:.4f}" if cut in recall else "–" for cut in cuts]
        cells += [f"{row['build_s']:.1f} s"]
        cells += [f"{row[name]:.2f} ms" for name in ("ms_per_query_batch_1", "ms_per_query_large_batch")]
        cells += [f"{row[name] / 2**20:,.1f} MiB" for name in ("bytes_in_memory", "bytes_on_disk")]
        places = [html(f"{at}/{head}") for head in heads[1:]]
        shown = "".join(
            f'<td><span data-index="{place}">{cell}</span></td>' for place, cell in zip(places, cells, strict=True)
        )
        body.append(f"<tr>{row_head(row['kind'], row.get('dataset', ''))}{shown}</tr>")
    ours = table(head_row(heads), body)
    return f"<section><h2>Indexes</h2>{ours}{_published_indexes()}</section>"


def _published_indexes() -> str:
    rows, source = published_indexes()
    heads = ("", *INDEX_HEADS[1:])
    body = []
    for row in rows:
        cells = [row["top1"], row["top20"], row["top50"], row["top100"]]
        cells += [row["search_s_top1"], row["search_s_top10"], row["file"]]
        shown = "".join(f'<td class="published"><span data-published>{html(cell)}</span></td>' for cell in cells)
        body.append(f"<tr><th>{html(row['index'])}</th>{shown}</tr>")
    head = head_row(heads, "published")
    said = f"Published, of answers in percent, another collection and machine: {html(source)}."
    return f"<p class='soft after'>{said}</p>{table(head, body)}"
