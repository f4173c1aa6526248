import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.readers import json_array
from data_tools.readers.json_array import array_items
from largede.errors import DataError

PATH = Path("some.json")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def items(data: bytes, key: str | None = None) -> list[Any]:
    return list(array_items(io.BytesIO(data), PATH, key))


def refusal(data: bytes, key: str | None = None) -> DataError:
    with pytest.raises(DataError) as raised:
        items(data, key)
    return raised.value


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_items_are_those_of_the_whole_document_for_any_window(
    values: list[Any], window: int, indent: int | None, ascii_only: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "WINDOW_CHARACTERS", window)
        document = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        try:
            document.decode()
        except UnicodeDecodeError:
            assert "not UTF-8" in refusal(document).given
        else:
            assert items(document) == values
            beside = b'{"version": "1", "other": [[1], {}], "data": ' + document + b', "after": {"data": [7]}} \n'
            assert items(beside, "data") == values


@pytest.mark.parametrize("window", [3, 1 << 20])
def test_a_document_cut_anywhere_is_refused(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "WINDOW_CHARACTERS", window)
    document = '{"data": [{"a": "straße \\u00df", "b": [1, 2.5e3, true]}, 12, null], "version": "2"}'.encode()
    assert len(items(document, "data")) == 3
    for end in range(len(document)):
        assert refusal(document[:end], "data").given.startswith("some.json cannot be read at character ")


@pytest.mark.parametrize(
    ("document", "key", "complaint"),
    [
        (b"[1, 2] 3", None, "at character 7: something follows the end"),
        (b"[1, 2,]", None, "at character 6: Expecting value"),
        (b"[1 2]", None, "at character 3: '2' stands where ',' should"),
        (b'{"data": {}}', "data", "'{' stands where '[' should"),
        (b'{"paragraphs": []}', "data", "the object has no array under 'data'"),
        (b"[]", "data", "'[' stands where '{' should"),
        (b"", None, "the file ends early"),
        (b'["\xff"]', None, "not UTF-8"),
        (b"[" * 100_000, None, "brackets are nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", None, "Exceeds the limit"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document: bytes, key: str | None, complaint: str) -> None:
    assert complaint in refusal(document, key).given


def test_a_fault_is_found_where_it_is_and_not_at_the_end_of_the_file() -> None:
    class Endless(io.RawIOBase):
        reads = 0

        def read(self, size: int = -1) -> bytes:
            self.reads += 1
            return b'[{"a": 1}, {"a" 2}' if self.reads == 1 else b" " * size

    stream = Endless()
    with pytest.raises(DataError, match="at character 16"):
        list(array_items(stream, PATH))  # type: ignore[arg-type]
    assert stream.reads == 2


def test_an_enormous_item_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "WINDOW_CHARACTERS", 100)
    monkeypatch.setattr(json_array, "MAX_ITEM_CHARACTERS", 1000)
    assert items(json.dumps(["x" * 900]).encode()) == ["x" * 900]
    assert "one item is longer than 1000 characters" in refusal(json.dumps(["x" * 10_000]).encode()).given


def test_memory_does_not_grow_with_the_array() -> None:
    item = json.dumps({"text": "word " * 2000}).encode()

    def parts(count: int) -> Iterator[bytes]:
        yield b"["
        for number in range(count):
            yield (b"," if number else b"") + item
        yield b"]"

    class Parts(io.RawIOBase):
        def __init__(self, count: int) -> None:
            self.left = parts(count)

        def read(self, size: int = -1) -> bytes:
            return next(self.left, b"")

    def peak(count: int) -> int:
        tracemalloc.start()
        assert sum(1 for _ in array_items(Parts(count), PATH)) == count  # type: ignore[arg-type]
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(1600) < 2 * peak(100)
