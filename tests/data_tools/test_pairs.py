import gzip
import json
from pathlib import Path

import pytest
import zstandard

from data_tools.pairs import PairReader
from data_tools.sources import MAX_LINE_BYTES
from largede.errors import DataError

LINES = [json.dumps({"query": f"q{i}", "positive": f"Straße {i}"}, ensure_ascii=False) for i in range(2000)]
TEXT = ("\n".join(LINES) + "\n").encode()


def queries(path: Path, skip_bad: int = 0) -> list[str]:
    return [pair.query for pair in PairReader([path], skip_bad)]


def refusal(path: Path, skip_bad: int = 0) -> DataError:
    with pytest.raises(DataError) as raised:
        queries(path, skip_bad)
    return raised.value


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_plain_gzip_and_zstandard_read_alike(tmp_path: Path) -> None:
    frame = zstandard.ZstdCompressor().compress
    files = [
        written(tmp_path / "a.jsonl", TEXT),
        written(tmp_path / "a.jsonl.gz", gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:])),
        written(tmp_path / "a.jsonl.zst", frame(TEXT[:5000]) + frame(TEXT[5000:])),
    ]
    assert [queries(path) for path in files] == [[f"q{i}" for i in range(2000)]] * 3


def test_blank_lines_a_byte_order_mark_and_a_missing_last_line_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + LINES[0].encode() + b"\r\n\n  \n" + LINES[1].encode())
    assert queries(path) == ["q0", "q1"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"query": "q", "positive": }', "line 2 is not JSON: Expecting value"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b'{"query": "\xff", "positive": "p"}', "line 2 is not UTF-8"),
        (b'{"query": " ", "positive": "p"}', "line 2 has no query, or an empty one"),
        (b'"text"', "line 2 holds text"),
    ],
)
def test_a_bad_line_is_named_and_can_be_passed_over(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = written(tmp_path / "a.jsonl", b"\n".join([LINES[0].encode(), line, LINES[1].encode()]))
    error = refusal(path)
    assert error.given.startswith(f"{path} {complaint}")
    assert error.mend
    assert queries(path, skip_bad=1) == ["q0", "q1"]


def test_one_bad_line_more_than_allowed_stops(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b"x\n" + LINES[0].encode() + b"\ny\nz\n")
    reader = PairReader([path], skip_bad=2)
    with pytest.raises(DataError, match="line 4 is not JSON"):
        list(reader)
    assert reader.skipped == 2


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "not compressed"])
def test_damaged_archives_are_never_taken_for_whole(tmp_path: Path, suffix: str, damage: str) -> None:
    compress = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    data = bytearray(compress(TEXT))
    if damage == "cut":
        del data[-20:]
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    path = written(tmp_path / f"a.jsonl.{suffix}", TEXT if damage == "not compressed" else bytes(data))
    error = refusal(path, skip_bad=10**6)
    assert f"{path} line " in error.given
    assert "cannot be decompressed" in error.given


def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(bytes(MAX_LINE_BYTES + 1), compresslevel=1))
    assert f"{path} line 1 is longer than {MAX_LINE_BYTES} bytes" in refusal(path).given


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.jsonl").given == f"{tmp_path / 'no.jsonl'} does not exist"
    assert refusal(tmp_path).given == f"{tmp_path} is a folder"
