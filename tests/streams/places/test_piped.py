import os
import subprocess
import time
from pathlib import Path

import pytest
from same_batches import batches, joined
from shard_sets import all_places, make_shards

from largede.errors import DataError
from largede.streams.index import ShardIndex
from largede.streams.places import patience, piped, place_of
from largede.streams.places.piped import PipedPlace
from largede.streams.places.place import Unreadable
from largede.streams.read import BlockReader


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return make_shards(tmp_path_factory.mktemp("data"))


def place(index: ShardIndex, command: str = "cat {folder}/{name}") -> PipedPlace:
    made = place_of("pipe:" + command.replace("{folder}", str(index.folder)), allow_pipe=True)
    assert isinstance(made, PipedPlace)
    return made


def children() -> list[str]:
    """Command lines of the processes that this one runs for itself alone, ended but not reaped ones included."""
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    # Python's own helpers (resource_tracker, forkserver) stay once anything in this session has started processes anew.
    return [line for line in listed.splitlines() if not line.startswith("ps ") and "from multiprocessing." not in line]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_those_of_the_local_folder(local: ShardIndex, world_size: int, workers: int) -> None:
    assert joined(place(local), world_size, workers=workers) == joined(local.folder, 1)


def test_without_permission_nothing_is_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would run a shell command") as raised:
        place_of(f"pipe:touch {tmp_path}/ran; cat {{name}}")
    assert "--allow-pipe" in raised.value.mend
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(DataError, match="has no {name}"):
        place_of("pipe:cat shard-00000.tar", allow_pipe=True)


def test_blocks_in_any_order_take_one_command_for_each_shard(tmp_path: Path, local: ShardIndex) -> None:
    reader = BlockReader(
        ShardIndex.load(place(local, f"echo {{name}} >> {tmp_path}/ran; cat {{folder}}/{{name}}")), cache_blocks=1
    )
    (tmp_path / "ran").unlink()
    backwards = all_places(local)[::-1]
    assert reader.pairs(backwards) == BlockReader(local).pairs(backwards)
    assert sorted((tmp_path / "ran").read_text().split()) == [shard.name for shard in local.shards]
    reader.index.place.close()


def test_past_the_most_commands_a_shard_is_read_anew(local: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piped, "OPEN_OUTPUTS", 1)
    assert joined(place(local), 1) == joined(local.folder, 1)


def test_reading_through_a_shard_is_said(
    local: ShardIndex, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piped, "PIECE_BYTES", 100)
    piping = place(local)
    piping.read("shard-00001.tar", 3000, 10)
    piping.close()
    assert caplog.messages == ["pipe: a command, shard-00001.tar: reading through 3000 bytes to reach a block"]


def test_only_what_is_needed_of_an_endless_command_is_read(local: ShardIndex) -> None:
    piping = place(local, "yes; : {name}")
    assert piping.read("any", 10, 4) == b"y\ny\n"
    with pytest.raises(Unreadable, match="more than 100 bytes"):
        list(piping.pieces("any", 100))
    piping.close()
    assert children() == []


def test_a_slow_command_is_said_while_it_lasts(
    local: ShardIndex, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SLOW_S", 0.06)
    monkeypatch.setattr(patience, "_watch", patience._Watch())
    piping = place(local, "sleep 0.2; cat {folder}/{name}")
    expected = (local.folder / "shard-00000.tar").read_bytes()[512:522]
    assert piping.read("shard-00000.tar", 512, 10) == expected
    piping.close()
    assert any("shard-00000.tar: reading has taken" in line for line in caplog.messages)


def test_a_failing_command_is_tried_again_and_then_shown(tmp_path: Path, local: ShardIndex) -> None:
    piping = place(local, f"echo {{name}} >> {tmp_path}/ran; echo no such bucket >&2; exit 3")
    with pytest.raises(DataError, match="ended with status 3: no such bucket"):
        piping.read("shard-00000.tar", 512, 10)
    assert (tmp_path / "ran").read_text().split() == ["shard-00000.tar"] * piped.ATTEMPTS
    with pytest.raises(DataError, match="ended with status 3: no such bucket"):
        ShardIndex.load(piping)
    assert children() == []


def test_a_command_that_fails_half_way_is_taken_up_where_it_stopped(tmp_path: Path, local: ShardIndex) -> None:
    # The first time a file is asked for, a thousand bytes come and then a failure.
    half = f"test -e {tmp_path}/{{name}} && cat {{folder}}/{{name}} || "
    half += f"{{ touch {tmp_path}/{{name}}; head -c 1000 {{folder}}/{{name}}; exit 1; }}"
    assert joined(place(local, half), 1) == joined(local.folder, 1)


def test_a_command_that_writes_too_little_is_damage_and_no_failure(local: ShardIndex) -> None:
    reader = BlockReader(ShardIndex.load(place(local)), damaged_limit=99)
    reader.index.place.address = f"case {{name}} in *3.tar) : ;; *) cat {local.folder}/{{name}} ;; esac"
    reader.pairs(all_places(local))
    assert set(reader.damaged) == {(3, block) for block in range(5)}
    assert reader.damaged[3, 0].startswith("has 0 bytes of ")
    reader.index.place.close()


def test_a_missing_file_is_the_commands_failure(local: ShardIndex) -> None:
    with pytest.raises(DataError, match=r"ended with status 1: cat: .*No such file"):
        place(local).read("shard-99999.tar", 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_process_is_left_behind(local: ShardIndex, workers: int, tmp_path: Path) -> None:
    command = f"echo $$ >> {tmp_path}/shells; cat {{folder}}/{{name}}; sleep 77"
    stream = iter(batches(place_reading_index_of(local, command), workers=workers))
    for _ in range(5):
        next(stream)
    stream.close()
    assert children() == []
    shells = (tmp_path / "shells").read_text().split()
    assert shells
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{shell}").exists() for shell in shells) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [shell for shell in shells if Path(f"/proc/{shell}").exists()] == []


def place_reading_index_of(local: ShardIndex, command: str) -> PipedPlace:
    """A place whose shards come from `command`, and the index from a plain cat."""
    plain = "cat {folder}/{name}"
    return place(local, f"case {{name}} in *.tar) {command} ;; *) {plain} ;; esac")
