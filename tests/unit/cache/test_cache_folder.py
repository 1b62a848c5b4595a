"""The cache's folder: whose it is, what of it is removed, and who can write to it. Nothing here loads a model."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.cache import folder as cache_folder
from mar_pipeline.cache import housekeeping
from mar_pipeline.cache.store import Record, Store
from mar_pipeline.cli.commands.doctor import own_cache
from mar_pipeline.errors import InputError
from mar_pipeline.files.tree import Tree

STRANGE = (
    "tmp/thesis.txt", "tmp/deep/er/notes.txt", "locks/house-keys.txt", "src/.env", "repo/.git/config",
    "partial/novel.txt", "files/2024/taxes.json", "keys/ssh/id_rsa.json", "trees/oak/photo.json",
    "blobs/ab/picture.jpg", "latest/news.json", "facts/history.txt", "compiler/notes/made.txt", ".bashrc",
)  # fmt: skip
"""Other people's files, in folders of the cache's own names too."""

COMMANDS = {
    "plan": ("plan", "--task", "seq_classification"),
    "build": ("build", "--task", "seq_classification"),
    "build by the model's task": ("build", "--model", "starter:seq_classification"),
    "release": ("release",),
    "lock": ("lock", "a.yaml"),
    "run": ("run", "a", "--input", "hello"),
    "explain": ("explain", "a", "--input", "hello"),
    "smoke": ("smoke", "a"),
    "list": ("cache", "list"),
    "gc": ("cache", "gc", "--max-size", "0"),
    "gc --dry-run": ("cache", "gc", "--dry-run"),
    "verify": ("cache", "verify"),
    "verify --repair": ("cache", "verify", "--repair"),
}


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder: mode, time of the last change, contents."""
    found = {}
    for path in [folder, *folder.rglob("*")] if folder.exists() else []:
        stat = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (stat.st_mode, stat.st_mtime_ns, data)
    return found


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
        os.utime(folder / name, (1, 1))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("MAR_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (work / "a.yaml").write_text("handler: {mode: sequence_classification, model_name: 'starter:seq_classification'}\n")
    manifest = work / "a" / "MAR-INF" / "MANIFEST.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"model": {"modelName": "a"}}')
    return work


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A cache that was used."""
    store = Store(tmp_path / "used")
    with store.in_use(), store.scratch() as scratch:
        (scratch / "a").write_bytes(b"contents")
        made = Tree.of(store.take(scratch))
        record = Record(key="c" * 64, stage="archive", tree=made.digest, material={}, subject="config#name")
        store.commit(record, made)
        store.touch(record, record.subject)
        store.remember("hub:a/b@main", "1" * 40)
        store.digests.know(Path(__file__), made.entries[0])
        with store.lock("d" * 64):
            pass
    return store.root


def unmarked(cache: Path) -> Path:
    """The cache as it was before caches were marked."""
    (cache / "CACHEDIR.TAG").unlink()
    return cache


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_folder_that_holds_other_things_is_no_cache_and_stays_as_it_is(
    tmp_path: Path, words: tuple[str, ...], by: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    project = fill(tmp_path / "project", *STRANGE)
    before = tree(project)
    if by == "environment":
        monkeypatch.setenv("MAR_CACHE", str(project))
    assert command.run([*words, *(["--cache", str(project)] if by == "option" else [])]) == 2
    assert tree(project) == before
    said = capsys.readouterr().err
    assert str(project) in said
    assert "--cache" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "names",
    [("notes.txt",), (".hidden",), ("tmp/a",), ("blobs/ab/c", "keys/k"), ("in-use.lock",), ("CACHEDIR.TAG",)],
    ids=" ".join,
)
def test_one_strange_file_is_enough_and_names_alone_make_no_cache(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = fill(tmp_path / "folder", *names)
    for act in (lambda: cache_folder.check(folder), lambda: Store(folder).in_use().__enter__()):
        with pytest.raises(InputError, match="cannot be at"):
            act()


def test_a_tag_of_another_tool_is_not_ours(used: Path) -> None:
    tag = used / "CACHEDIR.TAG"
    # As the specification of Cache Directory Tagging has it, and as other tools write it.
    assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    for other in ("# This file is a cache directory tag created by cargo.", "# mar-pipeline was here"):
        tag.write_text(f"Signature: 8a477f597d28d172789f06886806bc55\n{other}\n")
        with pytest.raises(InputError, match=r"CACHEDIR\.TAG"):
            cache_folder.check(used)


@pytest.mark.parametrize("holds", ["", ".", "lost+found", ".snapshot", ".zfs"])
def test_a_folder_that_is_new_or_empty_becomes_a_cache(tmp_path: Path, holds: str) -> None:
    root = tmp_path / "cache"
    if holds:
        (root / holds).mkdir(parents=True)  # as a new file system has it, or one that a server exports
    with Store(root).in_use():
        pass
    assert cache_folder.is_marked(root)
    cache_folder.check(root)


def test_a_cache_of_before_is_known_by_its_layout_marked_and_loses_nothing(used: Path) -> None:
    before = tree(unmarked(used))
    with Store(used).in_use():
        pass
    assert cache_folder.is_marked(used)
    after = tree(used)
    kept = {path: data for path, (_, _, data) in after.items() if path not in (".", "CACHEDIR.TAG", "locks")}
    assert {path for path in before if path not in after} == {f"locks/{'d' * 64}.lock"}
    assert kept.items() <= {path: data for path, (_, _, data) in before.items()}.items()


def test_a_read_only_cache_of_before_goes_on_working_unmarked(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmarked(used)
    before = tree(used)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *rest: refuse() if flags & os.O_RDWR else real(path, flags, *rest)
    )
    store = Store(used)
    with store.in_use():
        assert store.find("archive", "c" * 64) is not None
    assert tree(used) == before


WHATEVER: dict[str, Callable[[Path], None]] = {
    "build": lambda root: Store(root).in_use().__enter__(),
    "gc": lambda root: print(housekeeping.collect(Store(root), max_size=0, older_than=0)),
    "verify --repair": lambda root: print(housekeeping.damage(Store(root), repair=True)),
}


@pytest.mark.parametrize("act", WHATEVER.values(), ids=WHATEVER)
def test_what_the_cache_did_not_name_is_never_removed(used: Path, act: Callable[[Path], None]) -> None:
    near = ("blobs/ab/" + "cd" * 32, "blobs/ab/" + "ab" * 31, "trees/ab/" + "ab" * 32, "keys/archive/k.json",
            "latest/archive-ab.json", "facts/" + "a" * 25, "files/ab/" + "AB" * 32 + ".json", "partial/a.incomplete",
            "locks/a.lock", "tmp/" + "a" * 31 + "/x", "keys/archive/.a.json." + "0" * 32, "facts/.a.0123",
            "tmp/" + "b" * 32, "tmp/.x")  # fmt: skip
    # The last but one has a folder's name, and is a file.
    before = tree(fill(used, *STRANGE, *near))
    act(used)
    after = tree(used)
    assert {name: after.get(name) for name in (*STRANGE, *near)} == {name: before[name] for name in (*STRANGE, *near)}


@pytest.mark.parametrize("act", WHATEVER.values(), ids=WHATEVER)
@pytest.mark.parametrize(
    "below", ["tmp", "locks", "blobs/ab", "keys/archive", "trees/ab", "files/ab", "tmp/" + "e" * 32]
)
def test_links_in_a_cache_lead_nothing_out_of_it(
    used: Path, tmp_path: Path, act: Callable[[Path], None], below: str
) -> None:
    digest = "ab" * 32
    victim = fill(tmp_path / "victim", digest, f"{digest}.json", f"{digest}.lock", f"{'f' * 32}/file")
    before = tree(victim)
    place = used / below
    if place.is_dir():
        place.rename(tmp_path / "moved")
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    try:
        act(used)
    except InputError as error:
        assert "symbolic link" in str(error)  # noqa: PT017
    assert tree(victim) == before


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    (root / "in-use.lock").symlink_to(tmp_path / "made")
    with pytest.raises(InputError):
        Store(root).in_use().__enter__()
    assert not (tmp_path / "made").exists()


def test_leftovers_by_the_caches_own_names_go(used: Path) -> None:
    left = [used / "tmp" / uuid.uuid4().hex / "weights", used / "facts" / f".{'a' * 24}.{uuid.uuid4().hex}"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    assert housekeeping.collect(Store(used), dry_run=True) >= 8
    housekeeping.collect(Store(used))
    assert not any(file.exists() for file in left)


LOOKING = {
    "plan": ("plan", "--task", "seq_classification"),
    "plan by the model's task": ("plan", "--model", "starter:seq_classification"),
    "list": ("cache", "list"),
    "gc --dry-run": ("cache", "gc", "--dry-run"),
    "verify": ("cache", "verify"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("state", ["missing", "empty", "used", "used, without a mark", "damaged"])
@pytest.mark.parametrize("words", LOOKING.values(), ids=LOOKING)
def test_looking_writes_and_deletes_nothing_anywhere(
    tmp_path: Path, used: Path, state: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    cache = tmp_path / "cache"
    if state == "empty":
        cache.mkdir()
    elif state != "missing":
        cache = unmarked(used) if "without" in state else used
        fill(cache, f"tmp/{'a' * 32}/left", f"facts/.{'a' * 24}.{'b' * 32}")
        if state == "damaged":
            blob = next(cache.glob("blobs/*/*"))
            blob.chmod(0o644)
            blob.write_bytes(b"c0ntents")
    before = tree(tmp_path)
    command.run([*words, "--cache", str(cache)])
    assert tree(tmp_path) == before


def test_doctor_says_what_is_wrong_with_the_caches_folder(used: Path) -> None:
    assert own_cache(used).status == "ok"
    used.chmod(0o777)
    assert own_cache(used).status == "warn"
    assert own_cache(used).fix.startswith("To fix it: chmod")
    found = own_cache(fill(used.parent / "project", "notes.txt"))
    assert found.status == "fail"
    assert "notes.txt" in found.found
    assert "--cache" in found.fix


def test_a_store_that_only_looks_still_knows_what_it_learned(used: Path) -> None:
    store = Store(used, read_only=True)
    store.remember("hub:c/d@main", "2" * 40)
    assert store.recall("hub:c/d@main") == "2" * 40
    assert Store(used).recall("hub:c/d@main") is None


def test_a_store_that_only_looks_still_knows_the_files_that_it_read(used: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    store = Store(used, read_only=True)
    entry = store.digests.read(file, "weights")
    assert store.digests.known(file) == entry
    assert Store(used).digests.known(file) is None
    store.digests.forget(file)
    assert store.digests.known(file) is None


def test_damage_that_is_only_looked_at_is_a_miss_and_stays(used: Path) -> None:
    blob = next(used.glob("blobs/*/*"))
    blob.chmod(0o644)
    blob.write_bytes(b"c0ntents")
    told: list[str] = []
    store = Store(used, warn=told.append, read_only=True)
    assert store.find("archive", "c" * 64) is None
    assert store.find("archive", "c" * 64) is None
    assert len(told) == 1
    assert blob.exists()


@pytest.mark.parametrize("place", [".", "blobs", "blobs/*", "keys", "keys/archive", ".."])
@pytest.mark.parametrize("mode", [0o777, 0o775], ids=oct)
def test_a_cache_that_others_can_write_to_is_warned_of_with_what_mends_it(used: Path, place: str, mode: int) -> None:
    used.chmod(0o755)
    folder = next(used.parent.glob(f"used/{place}")) if "*" in place else (used / place).resolve()
    if mode == 0o775:
        os.chown(folder, -1, 12345) if os.geteuid() == 0 else pytest.skip("only root gives folders to other groups")
    told: list[str] = []
    with Store(used, warn=told.append).in_use():
        pass
    assert told == []
    folder.chmod(mode)
    store = Store(used, warn=told.append)
    with store.in_use(), store.in_use():  # twice in a command, and told once
        pass
    assert len(told) == 1
    assert len(told[0].splitlines()) <= 2
    fix = told[0].rpartition("To fix it: ")[2]
    assert fix.startswith("chmod ")
    assert os.system(fix) == 0
    assert cache_folder.risk(used) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("place", [".", "keys", ".."])
def test_a_cache_that_belongs_to_another_user_is_warned_of(used: Path, place: str) -> None:
    os.chown((used / place).resolve(), 12345, -1)
    assert "belongs to user 12345" in str(cache_folder.risk(used))


def test_a_sticky_folder_above_and_the_users_own_group_are_no_danger(used: Path) -> None:
    used.parent.chmod(0o1777)
    assert cache_folder.risk(used) is None
    used.chmod(0o1777)  # in it, others could add files of any name
    assert cache_folder.risk(used) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to other groups")
@pytest.mark.parametrize(
    ("user", "gid", "safe"),
    [(54321, 54321, True), (54321, 54322, False), (54321, 0, True), (0, 0, True), (0, 54321, False)],
)
def test_a_user_without_a_name_as_containers_have_it_owns_the_group_of_its_number(
    used: Path, monkeypatch: pytest.MonkeyPatch, user: int, gid: int, safe: bool
) -> None:
    os.chown(used, user, gid)
    used.chmod(0o775)
    for part in used.iterdir():
        os.chown(part, user, gid)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert (cache_folder.risk(used) is None) is safe


def test_what_nobody_else_can_enter_is_no_danger_whatever_is_in_it(used: Path) -> None:
    (used / "blobs").chmod(0o777)
    assert cache_folder.risk(used) is not None
    used.chmod(0o700)
    assert cache_folder.risk(used) is None


def test_a_folder_of_others_is_refused_with_three_names_and_the_number_of_the_rest(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"other files \(a, b, c, and 2 more\)"):
        cache_folder.check(tmp_path)
