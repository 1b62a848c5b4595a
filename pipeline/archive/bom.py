"""The bill of materials of an output folder: CycloneDX 1.6 as JSON, by cyclonedx-python-lib (extra `release`).

Its only input is the archives: their bytes, their manifests, and the provenance that each carries. So the same archives
give the same bytes on any machine, whatever is installed there. There is a timestamp only if SOURCE_DATE_EPOCH (seconds
since 1970) is set.

    metadata.component    the model store; depends on every archive
    components            each archive (machine-learning-model), with its files, and the checkpoint that it was built
                          from as its ancestor; and each package that an archive was built with, at its version
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from ..errors import InputError, StageError
from ..files.tree import text_digest
from . import writer
from .model_store import FOLDER, SUMS, archives, folder_lock, read_sums, renew, sum_lines
from .reader import PROVENANCE, Archive, digest

NAME = "bom.cdx.json"

# The component type of each entry of the provenance's `versions`; what is not listed here is a library.
_TYPES = {
    "mar-pipeline": ComponentType.APPLICATION,
    "python": ComponentType.PLATFORM,
    "torch": ComponentType.FRAMEWORK,
    "torch-model-archiver": ComponentType.APPLICATION,
    "transformers": ComponentType.FRAMEWORK,
}

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[^\s\x00-\x1f]+")


def write(out: Path, time: datetime | None) -> Path:
    """Write the bill of all archives in the output folder, and SHA256SUMS of the archives and the bill.

    Returns the bill's path. Raises InputError for an archive that cannot be read, StageError for one that changed since
    it was built, or if the bill cannot be written.
    """
    with _written(out), folder_lock(out):
        read = {name: _Archive(out / FOLDER / name) for name in archives(out)}
        sums = {f"{FOLDER}/{path}": sha for archive in read.values() for path, sha in archive.sums().items()}
        _compare(out, sums)
        text = _text(read, time)
        renew(out, NAME, text)
        sums[NAME] = text_digest(text)
        renew(out, SUMS, sum_lines(sums))
    return out / NAME


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Turn an OSError into a StageError."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"The bill of materials cannot be written: {error.strerror or error} ({error.filename or out}).",
            fix="Free some space, make the folder writable, or choose another one with --out.",
        ) from None


def timestamp(environment: Mapping[str, str]) -> datetime | None:
    """The time that SOURCE_DATE_EPOCH sets, in UTC; None if it is unset. Raises InputError if it is not a number."""
    seconds = environment.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(writer.epoch(seconds), timezone.utc) if seconds else None


def _compare(out: Path, sums: Mapping[str, str]) -> None:
    """Raises StageError if a file does not match the checksum that was written when it was built."""
    recorded = {path: sha for lines in read_sums(out).values() for path, sha in lines.items()}
    if changed := [path for path, sha in sums.items() if recorded.get(path, sha) != sha]:
        raise StageError(
            f"{out / changed[0]} is not the file that was built: its SHA-256 is different.",
            "Something wrote to it, or the disk is failing.",
            f"Remove it and build it again, or remove its line from {SUMS} if the change is intended.",
        )


class _Archive:
    """An archive and what the bill lists of it. Raises InputError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path, opened = path, Archive(path)
        self.kind = opened.kind
        self.files = opened.digests()
        self.sha256 = digest(path)
        try:
            self.name = opened.name
            self.version = str(opened.manifest["model"].get("modelVersion") or "")
            # Archives from other tools have no provenance.
            self.provenance: dict[str, Any] = dict(opened.json(PROVENANCE) or {})
            self.config: dict[str, Any] = dict(opened.json("config.json") or {})
            self.source: dict[str, Any] = dict(self.provenance.get("source") or {})
            self.checkpoint = _texts(self.provenance.get("checkpoint"), _SHA256)
            self.versions = _texts(self.provenance.get("versions"), _VERSION)
            self.purl = _purl(self.source)
            self.settings: dict[str, Any] = dict((self.provenance.get("settings") or {}).get("serialize") or {})
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} has a malformed manifest, {PROVENANCE} or config.json ({type(error).__name__}: {error}).",
                fix="Build it again, or take it out of the model store.",
            ) from None

    def sums(self) -> dict[str, str]:
        """SHA-256 by path in the model store, as `sha256sum` prints it: of the file, or of each file of a folder."""
        if self.path.is_dir():
            return {f"{self.path.name}/{path}": sha for path, sha in self.files.items()}
        return {self.path.name: self.sha256}

    def packages(self) -> dict[str, str]:
        """The version of each package that was used in the build."""
        return {name: version for name, version in self.versions.items() if version != "absent"}

    def licence(self) -> str | None:
        """The licence in the provenance or the model's config.json; a starter has this package's licence."""
        licence = self.source.get("license") or self.config.get("license")
        if licence is None and self.source.get("kind") == "starter":
            return "Apache-2.0"
        return licence if isinstance(licence, str) and licence.strip() else None


def _texts(mapping: Any, pattern: re.Pattern[str]) -> dict[str, str]:
    """A mapping of names to texts. Raises ValueError if a name is empty, or a value is not a text that matches the
    pattern."""
    texts = dict(mapping or {})
    if wrong := [
        name for name, text in texts.items() if not (name and isinstance(text, str) and pattern.fullmatch(text))
    ]:
        raise ValueError(f"{wrong[0]!r} is {str(texts[wrong[0]])[:80]!r}")
    return texts


def _purl(source: Mapping[str, Any]) -> PackageURL | None:
    """The package URL of the Hub repository and commit that a model is from; None for other sources."""
    namespace, _, name = str(source.get("repo") or "").rpartition("/")
    commit = _text_or_none(source.get("commit"))
    return PackageURL("huggingface", namespace or None, name, commit) if name else None


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _text(opened: Mapping[str, _Archive], time: datetime | None) -> str:
    root = Component(type=ComponentType.APPLICATION, name=FOLDER, bom_ref=f"{FOLDER}/")
    packages = {
        _ref(name, version): _package(name, version)
        for archive in opened.values()
        for name, version in archive.packages().items()
    }
    models = {name: _model(name, archive) for name, archive in opened.items()}
    bom = Bom(components=[*models.values(), *packages.values()], metadata=BomMetaData(component=root))
    # The library's default is the current time.
    bom.metadata.timestamp = time  # type: ignore[assignment]
    bom.register_dependency(root, models.values())
    for name, archive in opened.items():
        used = (packages[_ref(package, version)] for package, version in archive.packages().items())
        bom.register_dependency(models[name], used)
    bom.serial_number = UUID(int=0)
    bom.serial_number = uuid5(NAMESPACE_URL, f"urn:sha256:{text_digest(_json(bom))}")
    return _json(bom) + "\n"


def _json(bom: Bom) -> str:
    # Sorted keys: the bytes must not depend on the order in which a release of the library writes them.
    return json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=2, sort_keys=True)


def _model(ref: str, archive: _Archive) -> Component:
    purl = archive.purl
    properties = {
        "mar:archive": ref,
        "mar:archive-format": archive.kind,
        "mar:source": purl.to_string() if purl else archive.source.get("kind"),
        "mar:task": archive.settings.get("task"),
        "mar:save-mode": archive.settings.get("backend"),
        # A folder has no bytes to hash: this is the digest of its listing of files, as `mar inspect` shows it.
        "mar:listing-sha256": archive.sha256 if archive.path.is_dir() else None,
    }
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        name=archive.name,
        version=archive.version or None,
        hashes=None if archive.path.is_dir() else [_sha256(archive.sha256)],
        licenses=_licences(archive.licence()),
        properties=_properties(properties),
        pedigree=Pedigree(ancestors=_ancestors(archive)) if archive.source else None,
        components=_files(archive.files, f"{ref}/"),
    )


def _ancestors(archive: _Archive) -> list[Component]:
    """The model that the archive was built from, with its files; and the base model that an adapter was merged into."""
    model = _origin(archive.source, _licences(archive.licence()))
    model.components = _files(archive.checkpoint)
    base = archive.source.get("base")
    return [model, _origin(base, _licences(_text_or_none(base.get("license"))))] if isinstance(base, dict) else [model]


def _origin(source: Mapping[str, Any], licences: Iterable[License]) -> Component:
    """A source as a component: a Hub repository at a commit, an address, a folder, or a starter."""
    purl = _purl(source)
    name = source.get("name") or source.get("model") or source.get("url") or "checkpoint"
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        group=purl.namespace if purl else None,
        name=purl.name if purl else str(name),
        version=purl.version if purl else _text_or_none(source.get("version")),
        purl=purl,
        licenses=licences,
        properties=_properties({"mar:source": source.get("kind")}),
    )


def _files(files: Mapping[str, str], prefix: str | None = None) -> list[Component]:
    """A component for each file. Its reference is `prefix` and its path; without a prefix it has none."""
    return [
        Component(
            type=ComponentType.FILE,
            bom_ref=None if prefix is None else prefix + path,
            name=path,
            hashes=[_sha256(sha)],
        )
        for path, sha in sorted(files.items())
    ]


def _package(name: str, version: str) -> Component:
    return Component(
        type=_TYPES.get(name, ComponentType.LIBRARY),
        bom_ref=_ref(name, version),
        name=name,
        version=version,
        # The interpreter is not on a package index.
        purl=None if name == "python" else PackageURL(type="pypi", name=name, version=version),
    )


def _ref(package: str, version: str) -> str:
    return f"{package}=={version}"


def _sha256(content: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=content)


def _licences(expression: str | None) -> Iterable[License]:
    return [LicenseFactory().make_from_string(expression)] if expression else []


def _properties(values: Mapping[str, Any]) -> list[Property]:
    """The values that are not None, as text: JSON, unless a value is text already."""
    return [
        Property(name=name, value=value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for name, value in values.items()
        if value is not None
    ]
