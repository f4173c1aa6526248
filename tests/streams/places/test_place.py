import errno
import json
import os
import pickle
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_batches import batches, joined, take
from shard_sets import all_places, flip_byte, make_shards

from data_tools.cli import main
from largede.errors import DataError
from largede.files import sha256_file
from largede.streams import index as indexes
from largede.streams.index import BLOCKS_NAME, INDEX_NAME, ShardIndex
from largede.streams.places import local as locals_
from largede.streams.places import patience, place_of
from largede.streams.places.local import LocalPlace
from largede.streams.places.place import NotThere, Unreadable
from largede.streams.read import BlockReader

HOSTILE_NAMES = [
    "../secret",
    "..",
    ".hidden",
    "/etc/passwd",
    "a/b",
    "-rf",
    "a;b",
    "$(id)",
    "a b",
    "",
    "a\0",
    "%2e%2e",
    "a\n",
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("simplecache::s3://bucket/shards", "chain of file systems"),
        ("https://me:secret@example.org/shards", "address of the shards on example.org holds a password"),
        ("https://example.org/shards?token=1", "something behind the path"),
        ("pipe:cat {name}", "would run a shell command"),
        ("pipe: a command", "never saved with a recipe"),
        ("sftp://[hidden]@host/shards", "never saved with a recipe"),
    ],
)
def test_addresses_that_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as raised:
        place_of(text)
    assert "secret" not in str(raised.value)


def test_text_without_a_protocol_is_a_folder(tmp_path: Path) -> None:
    for text in (str(tmp_path), tmp_path, f"file://{tmp_path}", f"local://{tmp_path}"):
        place = place_of(text)
        assert isinstance(place, LocalPlace)
        assert place.folder == tmp_path


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("address", ["", "memory://shards", "http://127.0.0.1:9", "pipe:touch ran; cat {name}"])
def test_a_name_never_leads_out_of_its_place(tmp_path: Path, name: str, address: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "secret").write_text("secret")
    place = place_of(address or str(tmp_path / "shards"), allow_pipe=True)
    for use in (lambda: place.read(name, 0, 1), lambda: list(place.pieces(name, 9)), lambda: place.read_all(name, 9)):
        with pytest.raises(DataError, match="is no file name"):
            use()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    index = make_shards(tmp_path, count=20)
    record = json.loads((index.folder / INDEX_NAME).read_text())
    record["shards"][0]["name"] = name
    (index.folder / INDEX_NAME).write_text(json.dumps(record))
    with pytest.raises(DataError, match="is no file name"):
        ShardIndex.load(index.folder)


def test_a_huge_index_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "MAX_INDEX_BYTES", 1 << 20)
    with (tmp_path / INDEX_NAME).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=f"has {1 << 40} bytes, more than {1 << 20}"):
        ShardIndex.load(tmp_path)


def test_a_huge_table_of_blocks_is_not_read(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    with (index.folder / BLOCKS_NAME).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=f"{BLOCKS_NAME} has {1 << 40} bytes, more than"):
        ShardIndex.load(index.folder)


def test_a_block_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    table = np.load(index.folder / BLOCKS_NAME)
    table[0, 1] = 2**32 - 1
    np.save(index.folder / BLOCKS_NAME, table)
    record = json.loads((index.folder / INDEX_NAME).read_text())
    record["blocks"]["sha256"] = sha256_file(index.folder / BLOCKS_NAME)
    (index.folder / INDEX_NAME).write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"a block of shard-00000\.tar lies outside it"):
        ShardIndex.load(index.folder)


def test_odd_members_of_a_tar_are_read_past_and_never_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = make_shards(tmp_path)
    before = BlockReader(index).pairs(all_places(index))
    path = index.folder / index.shards[0].name
    link = tarfile.TarInfo("../../escaped")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    end = int(index.shards[0].blocks[-1, 0])
    data = bytearray(path.read_bytes())
    # A link in place of the header before the last block: its data still lies where the index says.
    data[end - 512 : end] = link.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    listed = sorted(tmp_path.rglob("*"))
    assert BlockReader(ShardIndex.load(index.folder)).pairs(all_places(index)) == before
    assert main(["verify", str(index.folder)]) == 2
    assert "shard-00000.tar does not match its checksum" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == listed


def test_all_missing_shards_are_counted_in_one_error(tmp_path: Path) -> None:
    index = make_shards(tmp_path, shard_pairs=8)
    for shard in index.shards[3:]:
        (index.folder / shard.name).unlink()
    with pytest.raises(DataError) as raised:
        ShardIndex.load(index.folder)
    names = [f"{index.folder / shard.name} is missing" for shard in index.shards[3:8]]
    assert raised.value.given == "; ".join(names) + "; and 17 more"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_overwritten_under_way_is_counted_and_then_stops_the_run(tmp_path: Path, workers: int) -> None:
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
    index = make_shards(tmp_path / "ours")
    others = make_shards(tmp_path / "others", count=201, block_pairs=7)
    stream = batches(index.folder, workers=workers, damaged_limit=3)
    with (index.folder / "shard-00002.tar").open("r+b") as file:
        file.write((others.folder / "shard-00002.tar").read_bytes())
    with pytest.raises(DataError, match="at most 3 damaged blocks"):
        take(stream)
    assert stream.skipped == {"shard-00002.tar": 4}


def test_a_truncated_shard_is_damage_from_where_it_ends(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    os.truncate(index.folder / "shard-00000.tar", int(index.shards[0].blocks[3, 0]))
    reader = BlockReader(index, damaged_limit=2)
    reader.pairs(all_places(index))
    assert set(reader.damaged) == {(0, 3), (0, 4)}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_agree_on_what_replaces_a_damaged_block(tmp_path: Path, world_size: int) -> None:
    index = make_shards(tmp_path)
    for shard, block in ((0, 0), (0, 1), (4, 4)):
        flip_byte(index, shard, block)
    whole = joined(index.folder, 1, damaged_limit=3)
    assert joined(index.folder, world_size, damaged_limit=3) == whole


def failing_preads(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> list[int]:
    """Let `os.pread` fail `times` times; gives the list of calls."""
    calls: list[int] = []
    pread = os.pread

    def failing(*given: Any) -> bytes:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number))
        return pread(*given)

    monkeypatch.setattr(os, "pread", failing)
    return calls


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_an_error_of_the_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    place = LocalPlace(tmp_path)
    failing_preads(monkeypatch, number, 3)
    assert place.read("file", 2, 3) == b"234"
    calls = failing_preads(monkeypatch, number, 99)
    with pytest.raises(Unreadable, match=f"cannot be read .{os.strerror(number)}."):
        place.read("file", 2, 3)
    assert len(calls) == patience.ATTEMPTS


def test_reads_that_give_less_than_asked_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 2), offset))
    assert LocalPlace(tmp_path).read("file", 1, 7) == b"1234567"
    with pytest.raises(Unreadable, match="has 5 bytes of 6"):
        LocalPlace(tmp_path).read("file", 5, 6)


def test_only_so_many_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locals_, "OPEN_FILES", 3)
    place = LocalPlace(tmp_path)
    for number in range(10):
        (tmp_path / f"file{number}").write_bytes(b"%d" % number)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [place.read(f"file{number}", 0, 1) for number in range(10)] == [b"%d" % n for n in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    place.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_share_a_place_that_closes_files_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locals_, "OPEN_FILES", 1)
    place = LocalPlace(tmp_path)
    for number in range(4):
        (tmp_path / f"file{number}").write_bytes(bytes([number]) * 1000)
    wrong: list[int] = []

    def read(number: int) -> None:
        for _ in range(500):
            if place.read(f"file{number}", 0, 1000) != bytes([number]) * 1000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("text", ["folder", "memory://shards", "http://127.0.0.1:9/shards", "pipe:cat {name}"])
def test_a_place_travels_to_another_process(text: str) -> None:
    place = place_of(text, allow_pipe=True)
    again = pickle.loads(pickle.dumps(place))
    assert (type(again), again.address) == (type(place), place.address) and text.endswith(str(again.address))


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        LocalPlace(tmp_path).read("file", 0, 1)
    assert LocalPlace(tmp_path / "nowhere").sizes(["file"]) == {}
