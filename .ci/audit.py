"""Known vulnerabilities of the lowest and the highest versions that pyproject.toml allows, by pip-audit.

Those of docs/reference/advisories.md are known, and said there; any other one is an error. Where pip-audit reaches no
database of vulnerabilities, that is printed, and only the known ones are compared. Run it by `make audit`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from mar_pipeline.host.advisories import ADVISORIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NOT_FOR_USERS = ("test", "lint", "docs")
# Of CVE-2025-14920, -14921 the second has the year of the first.
_IDS = re.compile(r"CVE-(\d{4})-(\d+)((?:, -\d+)*)")


def declared() -> dict[str, Requirement]:
    """What the package and its extras for users ask for, by name."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in _NOT_FOR_USERS]
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return {one.name: one for one in map(Requirement, lines)}


def lowest(one: Requirement) -> str | None:
    """The lowest allowed version; None if there is none."""
    return next((part.version for part in one.specifier if part.operator in (">=", "==")), None)


def highest(one: Requirement) -> str | None:
    """The version that pip has chosen in this environment, the highest allowed; None if it is not installed."""
    try:
        return metadata.version(one.name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def known() -> set[str]:
    """The identifiers in the table of advisories."""
    found = set()
    for advisory in ADVISORIES:
        for year, number, more in _IDS.findall(advisory.ids):
            found |= {f"CVE-{year}-{one}" for one in (number, *re.findall(r"\d+", more))}
    return found


def vulnerabilities(versions: dict[str, str]) -> list[dict[str, Any]]:
    """What pip-audit finds in its database, [{name, version, vulns}]."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in versions.items()))
        file.flush()
        words = [
            "--requirement",
            file.name,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run(["pip-audit", *words], capture_output=True, text=True, check=False, timeout=300)  # noqa: S607
    try:
        found = list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        found = []
    audited = [one for one in found if "skip_reason" not in one]
    if not audited:
        print("  pip-audit reaches no database of vulnerabilities here: only the known advisories were compared")
    elif missing := sorted(set(versions) - {one["name"] for one in audited}):
        print(f"  not in the database: {', '.join(missing)}")
    return audited


def main() -> int:
    """1 if a version has a vulnerability that docs/reference/advisories.md does not name."""
    wrong = 0
    for which in (lowest, highest):
        versions = {name: version for name, one in declared().items() if (version := which(one))}
        told = [one for one in ADVISORIES if one.package in versions and one.concerns(versions[one.package])]
        print(f"{which.__name__} versions: {len(versions)} packages, {len(told)} known advisories")
        for advisory in told:
            print(f"  {advisory.package} {versions[advisory.package]}: {advisory.ids}")
        for found in vulnerabilities(versions):
            for one in found["vulns"]:
                if not {one["id"], *one["aliases"]} & known():
                    wrong += 1
                    print(
                        f"  {found['name']} {found['version']}: {one['id']}, which docs/reference/advisories.md lacks"
                    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
