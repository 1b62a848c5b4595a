"""Whether a file of an archive is known to be harmless: of a known kind (`kinds`), and no pickle, in any disguise.

A file that holds others (a zip file, a compressed one) is harmless if all that is in it is, down to DEEPEST levels.
"""

from __future__ import annotations

import time
import zipfile

from ..files import pointers
from ..text import some
from . import arrays, kinds, packed, pickles, torchscript
from .content import HELD, Content, Problem
from .packed import Budget, Unexamined
from .pickles import Pickled

DEEPEST = 4
"""Levels of files in files that are examined."""

_ELSEWHERE = "Leave it out of the archive, or find out where it comes from and what loads it."
_SAFE = "Save weights as safetensors, and other data as JSON or text."
_DO_NOT = "Do not load it; find out where it comes from."
_UNPACK = "Pack what is in it instead."


def problem(file: Content, budget: Budget, depth: int = 0) -> Problem | None:
    """The first reason why a file is not known to be harmless; None if it is."""
    if not file.size:
        return _not_json(file)
    if not depth and pointers.is_pointer(file.start):
        return None  # it has a finding of its own
    if time.monotonic() > budget.until:
        return Problem(f"is not examined: the other files took more than {packed.SECONDS} s", _UNPACK)
    if depth > DEEPEST:
        return Problem(f"has more than {DEEPEST} files in one another, and is not examined", _UNPACK)
    if depth and (file.suffix in kinds.SOURCES or file.start.startswith(b"#!")):
        return Problem("is a program that is hidden in another file", _UNPACK)
    if found := _other_archive(file):
        return found
    try:
        if packed.is_zip(file):
            return _zip(file, budget, depth) or _not_json(file)
        inner = packed.decompressed(file, budget)
    except Unexamined as error:
        return Problem(str(error), _UNPACK)
    if inner is not None:
        return _compressed(inner, budget, depth) or _not_json(file)
    return _single(file)


def _single(file: Content) -> Problem | None:
    """The problem with a file that holds no others."""
    why = kinds.unproven(file)
    if arrays.has_objects(file.start):
        return _pickled(Pickled("a NumPy array of objects"))
    if found := _pickle(file, other=not why):
        return found
    if file.name.endswith(pickles.SUFFIXES):
        return _pickled(Pickled("a pickle by its name"))
    return _unproven(file, why) if why else _not_json(file)


def _pickled(pickled: Pickled) -> Problem:
    if pickled.harmful:
        calls = some(list(pickled.harmful))
        what = f"is {pickled.kind} that calls {calls} when it is loaded: a model does not need that"
        return Problem(what, _DO_NOT, pickled)
    names = f" (it names {some(list(pickled.names))})" if pickled.names else ""
    what = f"is {pickled.kind}{names}: loading it may run any code, with the server's rights"
    return Problem(what, _SAFE, pickled)


def _pickle(file: Content, *, other: bool) -> Problem | None:
    """The pickle that a file is, or unpacks to, if it is one; `other` if it is of another kind already."""
    try:
        found = pickles.look(file.start, file.size, other=other)
    except pickles.Undecided:
        with file.open() as stream:
            start = stream.read(HELD)
        try:
            found = pickles.look(start, file.size, other=other)
        except pickles.Undecided:
            return Problem("begins like a pickle that is too large to be examined", _ELSEWHERE)
    if found:
        return _pickled(found)
    if unpacked := packed.beginning(file):
        try:
            found = pickles.look(*unpacked, other=other)
        except pickles.Undecided:
            return Problem("is compressed, and begins like a pickle", _ELSEWHERE)
    return _pickled(Pickled("a compressed pickle", found.names)) if found else None


def _unproven(file: Content, why: str) -> Problem:
    if file.suffix in kinds.PICKLES:
        return Problem(f"{why}: torch, NumPy or joblib may load it as a pickle, which runs any code", _SAFE)
    if file.suffix in kinds.PROGRAMS or file.start.startswith((b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe")):
        return Problem("is a compiled program or library, and what it does is not examined", _ELSEWHERE)
    return Problem(why, "Save it again." if file.suffix == ".safetensors" else _ELSEWHERE)


def _not_json(file: Content) -> Problem | None:
    error = kinds.json_problem(file)
    if error is None:
        return None
    # transformers once wrote such numbers into a model's settings.
    read = error.extension and file.name in ("config.json", "generation_config.json")
    what = f"is not JSON: {error}" + ("; Python reads it, and other programs do not" if read else "")
    return Problem(what, "Write it again with a JSON library.", level="warning" if read else "error")


def _other_archive(file: Content) -> Problem | None:
    """A file that holds others and is not unpacked here."""
    name = next((name for begins, name in packed.NOT_EXAMINED.items() if file.start.startswith(begins)), "")
    if packed.is_tar(file.start):
        name = "a tar file, from which torch.load also reads pickles"
    return Problem(f"is {name}: what is in it is not examined", _UNPACK) if name else None


def _compressed(inner: Content, budget: Budget, depth: int) -> Problem | None:
    found = problem(inner, budget, depth + 1)
    if found and found.pickled:
        return _pickled(Pickled("a compressed pickle", found.pickled.names))
    return found and Problem(f"is compressed, and what is in it {found.what}", found.do)


def _zip(file: Content, budget: Budget, depth: int) -> Problem | None:
    """The problem with a zip file: TorchScript that is not harmless, or a member. Raises packed.Unexamined."""
    with packed.opened_zip(file) as opened:
        members = {info.filename: info for info in opened.infolist() if not info.is_dir() or info.file_size}
        if torchscript.is_one(members):

            def read(name: str, most: int) -> bytes:
                if members[name].file_size > most:
                    raise Unexamined(f"has a {name} that is too large to be examined")
                return _read(opened, members[name], budget)

            try:
                names = torchscript.check(members, read)
            except torchscript.Harmful as harmful:
                return Problem(str(harmful), _DO_NOT)
        else:
            # Pickles first: they say what the file is.
            names = sorted(members, key=lambda name: not name.endswith(pickles.SUFFIXES))
        for name in names:
            inner = packed.held(name, _read(opened, members[name], budget))
            if found := problem(inner, budget, depth + 1):
                return _in_zip(inner, found)
    return None


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    budget.spend(info.file_size)
    return opened.read(info)


def _in_zip(inner: Content, found: Problem) -> Problem:
    if found.pickled is None:
        return Problem(f"is a zip file whose {inner.path} {found.what}", found.do)
    kind = found.pickled.kind
    if inner.name == "data.pkl":
        kind = "a file of torch.save"
    elif not kind.startswith("a zip file"):
        kind = f"a zip file with {kind} in it"
    return _pickled(Pickled(kind, found.pickled.names))
