"""The store: contents by digest, results by key."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from pathlib import Path

import pytest

from mar_pipeline.cache import housekeeping
from mar_pipeline.cache.store import Damaged, Record, Store, key_of
from mar_pipeline.files import atomic
from mar_pipeline.files.tree import Entry, Tree, scan


@pytest.fixture
def store(tmp_path: Path, told: list[str]) -> Store:
    return Store(tmp_path / "cache", warn=told.append)


@pytest.fixture
def told() -> list[str]:
    """What the store warns of."""
    return []


def put(store: Store, files: dict[str, bytes], key: str = "c" * 64, stage: str = "archive") -> Record:
    with store.scratch() as scratch:
        for path, data in files.items():
            (scratch / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / path).write_bytes(data)
        tree = Tree.of(store.take(scratch))
    record = Record(key=key, stage=stage, tree=tree.digest, material={"params": {"key": key}}, subject="config#name")
    store.commit(record, tree)
    return record


def test_a_key_is_what_it_was_in_the_last_release() -> None:
    # Pinned: if this changes, every user's cache is lost. Raise store.SCHEMA when that is meant.
    material = {
        "stage": "serialize",
        "version": 1,
        "params": {"save_mode": "torchscript", "max_length": 128},
        "tools": {"torch": "2.13.0"},
        "inputs": {"download": "0" * 64},
    }
    text = (
        '{"inputs":{"download":"' + "0" * 64 + '"},"params":{"max_length":128,"save_mode":"torchscript"},'
        '"schema":1,"stage":"serialize","tools":{"torch":"2.13.0"},"version":1}'
    )
    assert key_of(material) == hashlib.sha256(text.encode()).hexdigest()
    assert key_of(material) == "9994d98068246bc21f46e4313ed728063d92843d4c8b7fae10ba8cd5fd414ce0"


def test_digests_are_those_of_independent_libraries(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    assert scan(tmp_path / "file", "x") == Entry("x", hashlib.sha256(data).hexdigest(), len(data), zlib.crc32(data))


def test_what_is_put_in_is_found_again_by_key_and_laid_out_whole(store: Store, tmp_path: Path) -> None:
    record = put(store, {"a": b"one", "sub/b": b"two"})
    assert store.find("archive", record.key) == record
    folder = store.lay_out(store.tree(record.tree), None, tmp_path / "out")
    assert (folder / "a").read_bytes() == b"one"
    assert (folder / "sub/b").read_bytes() == b"two"


def test_equal_folders_have_equal_digests_and_are_kept_once(store: Store) -> None:
    first, second = put(store, {"a": b"same"}, "1" * 64), put(store, {"a": b"same"}, "2" * 64)
    assert first.tree == second.tree
    assert len(list(store.root.glob("blobs/*/*"))) == 1


def test_blobs_cannot_be_written_to(store: Store) -> None:
    put(store, {"a": b"sealed"})
    (blob,) = store.root.glob("blobs/*/*")
    assert blob.stat().st_mode & 0o222 == 0


def changed(file: Path, data: bytes, *, quietly: bool = False) -> None:
    """Write to a file of the store; `quietly`, as a disk does that goes bad, with no trace in its times."""
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(data)
    if quietly:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_missing_blob_makes_its_result_a_miss_without_a_word(told: list[str], store: Store) -> None:
    record = put(store, {"a": b"contents"})
    next(store.root.glob("blobs/*/*")).unlink()
    assert store.find("archive", record.key) is None
    assert told == []


@pytest.mark.parametrize("data", [b"cont", b"c0ntents"], ids=["shortened", "of the same size"])
def test_a_blob_that_was_written_to_is_told_and_makes_its_result_a_miss(
    told: list[str], store: Store, data: bytes
) -> None:
    record = put(store, {"a": b"contents"})
    (blob,) = store.root.glob("blobs/*/*")
    changed(blob, data)
    assert store.find("archive", record.key) is None
    assert [line for line in told if "damaged" in line and "a (d1b2a59fbea7)" in line] == told != []
    assert not blob.exists()


def test_a_blob_that_was_only_touched_is_read_once_and_kept(told: list[str], store: Store) -> None:
    record = put(store, {"a": b"contents"})
    (blob,) = store.root.glob("blobs/*/*")
    sealed = blob.stat().st_mtime_ns
    os.utime(blob)
    assert store.find("archive", record.key) == record
    assert blob.stat().st_mtime_ns == sealed
    assert told == []


def test_contents_that_changed_without_a_trace_are_found_when_they_are_used(told: list[str], store: Store) -> None:
    record = put(store, {"a": b"contents"})
    (blob,) = store.root.glob("blobs/*/*")
    changed(blob, b"c0ntents", quietly=True)
    assert store.find("archive", record.key) == record
    with pytest.raises(Damaged):
        store.lay_out(store.tree(record.tree), None, store.root / "laid")
    assert len(told) == 1
    assert store.find("archive", record.key) is None


NOTED = ["", "{", "[]", "5", '{"key": 1}', "\x00", "[" * 5000]


@pytest.mark.parametrize("text", NOTED, ids=["empty", "cut", "list", "number", "fields", "zero", "deep"])
def test_a_damaged_record_is_told_and_a_miss(told: list[str], store: Store, text: str) -> None:
    record = put(store, {"a": b"contents"})
    (store.root / "keys" / "archive" / f"{record.key}.json").write_text(text)
    assert store.find("archive", record.key) is None
    assert len(told) == 1


def test_every_single_byte_of_a_note_counts(tmp_path: Path) -> None:
    file = tmp_path / "note"
    atomic.write(file, {"commit": "0" * 40, "size": 12})
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert atomic.read(file) == {"commit": "0" * 40, "size": 12}  # a space, a letter's case
        except atomic.DamagedNote:
            continue


def test_a_damaged_fact_is_forgotten(told: list[str], store: Store) -> None:
    store.remember("hub:a/b@main", "1" * 40)
    (file,) = store.root.glob("facts/*")
    file.write_text(file.read_text().replace("1" * 40, "2" * 40))
    assert store.recall("hub:a/b@main") is None
    assert len(told) == 1


def test_a_damaged_listing_is_told_and_a_miss(told: list[str], store: Store) -> None:
    record = put(store, {"a": b"contents"})
    (listing,) = store.root.glob("trees/*/*.json")
    listing.write_text(listing.read_text().replace('"a"', '"b"'))
    assert store.find("archive", record.key) is None
    assert len(told) == 1


def test_damage_finds_a_changed_byte_and_repair_removes_it(store: Store) -> None:
    record = put(store, {"a": b"contents"})
    assert housekeeping.damage(store) == []
    (blob,) = store.root.glob("blobs/*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"c0ntents")
    assert len(housekeeping.damage(store, repair=True)) == 2  # the blob, and the result that needs it
    assert store.find("archive", record.key) is None
    assert housekeeping.damage(store) == []


def test_a_file_outside_is_known_until_it_changes(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    assert store.digests.known(file) is None
    entry = store.digests.read(file, "weights")
    times = file.stat().st_mtime_ns
    assert store.digests.known(file) == entry
    file.write_bytes(b"other")
    os.utime(file, ns=(0, times))
    assert file.stat().st_mtime_ns == times  # nothing but the time of its last change tells
    assert store.digests.known(file) is None


def test_a_result_whose_files_lie_outside_is_a_miss_once_they_change(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    tree = Tree.of([store.digests.read(file, "weights")])
    places = {"weights": str(file)}
    record = Record(key="c" * 64, stage="download", tree=tree.digest, material={}, subject="s#n", places=places)
    store.commit(record, tree)
    assert store.find("download", record.key) == record
    file.write_bytes(b"other")
    assert store.find("download", record.key) is None


def test_a_users_file_is_linked_to_by_name_and_never_shared(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    tree = Tree.of([store.digests.read(file, "weights")])
    laid = store.lay_out(tree, {"weights": str(file)}, tmp_path / "out") / "weights"
    assert laid.is_symlink()
    assert file.stat().st_nlink == 1


def test_garbage_collection_keeps_what_results_name(store: Store) -> None:
    record = put(store, {"a": b"kept"})
    stray = store.blob("f" * 64)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"stray bytes")
    assert housekeeping.collect(store, dry_run=True) == 11
    assert stray.exists()
    assert housekeeping.collect(store) == 11
    assert not stray.exists()
    assert store.find("archive", record.key) == record


def test_garbage_collection_drops_the_longest_unused_first(store: Store) -> None:
    old, new = put(store, {"a": b"x" * 100}, "1" * 64), put(store, {"a": b"y" * 100}, "2" * 64)
    os.utime(store.root / "keys" / "archive" / f"{old.key}.json", (1, 1))
    housekeeping.collect(store, max_size=150)
    assert store.find("archive", old.key) is None
    assert store.find("archive", new.key) == new


def test_garbage_collection_drops_what_was_not_used_for_long(store: Store) -> None:
    record = put(store, {"a": b"x"})
    os.utime(store.root / "keys" / "archive" / f"{record.key}.json", (1, 1))
    housekeeping.collect(store, older_than=60)
    assert store.find("archive", record.key) is None
    assert list(store.root.glob("blobs/*/*")) == []


def test_garbage_is_not_collected_while_a_build_runs(store: Store) -> None:
    with store.in_use(), pytest.raises(BlockingIOError), store.exclusive():
        pass


def test_two_builds_use_the_store_side_by_side(store: Store) -> None:
    with store.in_use(), store.in_use():
        (store.root / "tmp" / "mine").mkdir(parents=True)
        with store.in_use():
            assert (store.root / "tmp" / "mine").is_dir()


def test_leftovers_of_killed_builds_go_with_the_next_one(store: Store) -> None:
    left = store.root / "tmp" / uuid.uuid4().hex
    with store.in_use():
        left.mkdir(parents=True)
    with store.in_use():
        assert not left.exists()


def test_the_latest_run_of_a_subject_is_remembered(store: Store) -> None:
    record = put(store, {"a": b"x"})
    store.touch(record, record.subject)
    assert store.latest("archive", "config#name") == record.material
    assert store.latest("archive", "another") is None


def test_a_record_reads_back_as_it_was_written(store: Store) -> None:
    record = put(store, {"a": b"x"})
    written = json.loads((store.root / "keys" / "archive" / f"{record.key}.json").read_text())
    assert Record(**written["value"]) == record


def test_results_are_listed_with_whose_last_builds_they_belong_to(store: Store) -> None:
    record = put(store, {"a": b"x"})
    store.touch(record, "one.yaml#name")
    store.touch(record, "two.yaml#name")
    (result,) = housekeeping.results(store)
    assert result.users == ("one.yaml#name", "two.yaml#name")
    other = put(store, {"a": b"y"}, "2" * 64)
    store.touch(other, "two.yaml#name")
    users = {result.record.key: result.users for result in housekeeping.results(store)}
    assert users == {record.key: ("one.yaml#name",), other.key: ("two.yaml#name",)}


def test_a_clock_that_was_ahead_makes_nothing_older(store: Store) -> None:
    record = put(store, {"a": b"x"})
    os.utime(store.root / "keys" / "archive" / f"{record.key}.json", (2**32, 2**32))
    housekeeping.collect(store, older_than=60)
    assert store.find("archive", record.key) == record


def test_garbage_collection_finds_what_killed_builds_left_beside_files(store: Store) -> None:
    put(store, {"a": b"x"})
    before = {path for path in store.root.rglob("*") if path.is_file()}
    digest = "ab" * 32
    names = ("keys/archive/{0}.json", "trees/ab/{0}.json", "latest/archive-{1}.json", "files/ab/{0}.json", "facts/{1}")
    for name in (Path(name.format(digest, digest[:24])) for name in names):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).with_name(f".{name.name}.{uuid.uuid4().hex}").write_text("half")
    left = store.root / "tmp" / uuid.uuid4().hex
    left.mkdir(parents=True)
    (left / "weights").write_text("half")
    assert housekeeping.collect(store, dry_run=True) == 6 * 4
    assert housekeeping.collect(store) == 6 * 4
    assert {path for path in store.root.rglob("*") if path.is_file()} == before


def test_a_relative_folder_is_meant_from_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("cache"))
    monkeypatch.chdir("/")
    assert store.blob("ab").is_relative_to(tmp_path / "cache")
