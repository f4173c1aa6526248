import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.spec import AbstractBufferedFile
from same_batches import batches, joined, take
from shard_sets import all_places, make_shards

from largede.errors import DataError
from largede.streams.index import ShardIndex
from largede.streams.places import patience, place_of
from largede.streams.places.place import Place, Unreadable
from largede.streams.read import BlockReader


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bucket(local: ShardIndex) -> Iterator[str]:
    """The URL of the shards in a store that speaks S3, on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "made",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="made")
        for path in local.folder.iterdir():
            client.upload_file(str(path), "made", f"pairs/shards/{path.name}")
        yield "s3://made/pairs/shards"
    server.stop()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_of_an_s3_store_are_those_of_the_local_folder(
    bucket: str, local: ShardIndex, world_size: int, workers: int
) -> None:
    assert joined(place_of(bucket), world_size, workers=workers) == joined(local.folder, 1)


def test_an_s3_store_is_listed_once_and_then_asked_for_ranges(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    index = ShardIndex.load(place_of(bucket))
    asked: list[tuple[str, str]] = []
    call = s3fs.S3FileSystem._call_s3

    async def noting(self: Any, method: str, *args: Any, **given: Any) -> Any:
        asked.append((method, given.get("Range", "")))
        return await call(self, method, *args, **given)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noting)
    assert index.file_problems(index.shards) == {}
    BlockReader(index).pairs(all_places(index)[:9])
    places = [block[:2].tolist() for block in index.shards[0].blocks[:2]]
    ranges = [("get_object", f"bytes={first}-{first + size - 1}") for first, size in places]
    assert asked == [("list_objects_v2", ""), *ranges]


def test_missing_and_resized_objects_are_named_at_the_start(bucket: str, local: ShardIndex) -> None:
    import boto3

    client = boto3.client("s3")
    for path in local.folder.iterdir():
        if path.name != "shard-00003.tar":
            data = path.read_bytes()
            client.put_object(
                Bucket="made", Key=f"other/{path.name}", Body=data[:-512] if "00001" in path.name else data
            )
    with pytest.raises(DataError) as raised:
        ShardIndex.load(place_of("s3://made/other"))
    assert f"s3://made/other/shard-00001.tar has {local.shards[1].bytes - 512} bytes; " in raised.value.given
    assert "s3://made/other/shard-00003.tar is missing" in raised.value.given


def test_an_object_cut_short_or_replaced_under_way_is_damage(bucket: str, local: ShardIndex) -> None:
    import boto3

    client = boto3.client("s3")
    for path in local.folder.iterdir():
        client.upload_file(str(path), "made", f"changing/{path.name}")
    reader = BlockReader(ShardIndex.load(place_of("s3://made/changing")), damaged_limit=99)
    first = (local.folder / "shard-00000.tar").read_bytes()
    third_block = int(local.shards[0].blocks[2, 0])
    client.put_object(Bucket="made", Key="changing/shard-00000.tar", Body=first[: third_block + 5])
    client.put_object(Bucket="made", Key="changing/shard-00001.tar", Body=first)
    client.delete_object(Bucket="made", Key="changing/shard-00004.tar")
    reader.pairs(all_places(local)[:80])
    assert set(reader.damaged) == {(0, 2), (0, 3), (0, 4)} | {(1, block) for block in range(5)}
    assert reader.damaged[0, 2] == f"has 5 bytes of {local.shards[0].blocks[2, 1]}"
    assert reader.damaged[0, 4].startswith("cannot be read")
    with pytest.raises(DataError, match=r"changing/shard-00004\.tar is missing"):
        reader.pairs(all_places(local)[-1:])


def test_no_bucket_and_no_index(bucket: str) -> None:
    for url in ("s3://no-such-bucket/shards", "s3://made/nothing"):
        with pytest.raises(DataError, match=r"has no index\.json"):
            ShardIndex.load(place_of(url))


@pytest.fixture
def memory(local: ShardIndex) -> Iterator[Place]:
    files = fsspec.filesystem("memory")
    for path in local.folder.iterdir():
        files.pipe_file(f"/shards/{path.name}", path.read_bytes())
    yield place_of("memory://shards")
    files.rm("/shards", recursive=True)


class FoundFile(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.fetched.append((start, end))
        return Path(self.path).read_bytes()[start:end]


class FoundFiles(fsspec.AbstractFileSystem):
    """A file system with file objects alone, as fsspec's for SFTP or SMB are."""

    protocol = "found"
    fetched: ClassVar[list[tuple[int, int]]] = []

    def _open(self, path: str, mode: str = "rb", block_size: int = 2**22, **given: Any) -> FoundFile:
        return FoundFile(self, path, mode, block_size, **given)

    def info(self, path: str, **given: Any) -> dict[str, Any]:
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def ls(self, path: str, detail: bool = True, **given: Any) -> list[Any]:
        return [self.info(str(entry)) for entry in Path(path).iterdir()]


def test_a_file_system_of_file_objects_is_not_read_ahead(local: ShardIndex) -> None:
    fsspec.register_implementation("found", FoundFiles, clobber=True)
    place = place_of(f"found://{local.folder}")
    assert take(batches(place)) == take(batches(local.folder))
    FoundFiles.fetched.clear()
    place.read("shard-00000.tar", 512, 100)
    assert FoundFiles.fetched == [(512, 612)]


class Gone(Exception):
    """As a library behind fsspec might raise it."""


Gone.__module__ = "somestore.errors"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (TimeoutError("no answer"), "cannot be read (TimeoutError: no answer)"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "cannot be read (ConnectionResetError: [Errno 104] reset)"),
        (Gone("come back later"), "cannot be read (Gone: come back later)"),
    ],
)
def test_failures_in_passing_are_tried_again_for_a_while(
    memory: Place, monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    attempts = failing(monkeypatch, [failure] * 3)
    assert len(memory.read("shard-00000.tar", 512, 100)) == 100
    assert len(attempts) == 4
    attempts = failing(monkeypatch, [failure] * 99)
    with pytest.raises(Unreadable) as raised:
        memory.read("shard-00000.tar", 512, 100)
    assert str(raised.value) == said
    assert len(attempts) == patience.ATTEMPTS


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (PermissionError("access denied"), DataError, r"may not be read \(PermissionError: access denied\)"),
        (OSError(errno.EINVAL, "the range is not satisfiable"), Unreadable, "not satisfiable"),
        (TypeError("a defect"), TypeError, "a defect"),
    ],
)
def test_other_failures_are_not_tried_again(
    memory: Place, monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[Exception], said: str
) -> None:
    attempts = failing(monkeypatch, [failure] * 99)
    with pytest.raises(kind, match=said):
        memory.read("shard-00000.tar", 512, 100)
    assert len(attempts) == 1


def failing(monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> list[int]:
    """Let the memory file system fail with each of `failures` in turn, then work; gives the list of attempts."""
    kind = type(fsspec.filesystem("memory"))
    cat_file = fsspec.AbstractFileSystem.cat_file
    attempts: list[int] = []

    def cat(self: Any, *args: Any, **given: Any) -> bytes:
        attempts.append(len(attempts))
        if len(attempts) <= len(failures):
            raise failures[len(attempts) - 1]
        return cat_file(self, *args, **given)

    monkeypatch.setattr(kind, "cat_file", cat, raising=False)
    return attempts


def test_a_protocol_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    monkeypatch.setitem(known_implementations, "farstore", {"class": "farstorefs.Files", "err": "Install farstorefs"})
    with pytest.raises(DataError, match="needs a package that is not installed") as raised:
        ShardIndex.load(place_of("farstore://bucket/shards"))
    assert raised.value.mend == "pip install farstorefs"


def test_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        ShardIndex.load(place_of("nonsense://bucket/shards"))


def test_a_file_url_is_the_folder(local: ShardIndex) -> None:
    assert ShardIndex.load(place_of(f"file://{local.folder}")).folder == Path(local.folder)
