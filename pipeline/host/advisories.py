"""Security advisories of the libraries that builds and servers use, in the versions that this package can be installed
with: for `mar doctor`, and for docs/reference/advisories.md, a page that is generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """`ids` of one fault, or of several of a kind, in the versions `affected` (a PEP 440 range; "" is all) of a
    distribution: what it `means` here, and what to `do`."""

    ids: str
    package: str
    affected: str
    means: str
    do: str

    def concerns(self, version: str) -> bool:
        return SpecifierSet(self.affected).contains(version, prereleases=True)


ADVISORIES = (
    Advisory(
        ids="CVE-2026-5241",
        package="transformers",
        affected="<5.3",
        means="A config.json with trust_remote_code inside makes it run code of the model's own, although "
        "handler.trust_remote_code is false. Builds refuse such a file before transformers reads it.",
        do="pip install 'transformers>=5.3'; with an older one, build models that you trust.",
    ),
    Advisory(
        ids="CVE-2026-4372",
        package="transformers",
        affected=">=4.56,<5.3",
        means="A config.json can name a kernel of the Hub, whose code runs where the package kernels is installed. "
        "What loads models here has no network, so it runs only from a cache that has it already.",
        do="pip install 'transformers>=5.3', or pip uninstall kernels.",
    ),
    Advisory(
        ids="CVE-2026-1839",
        package="transformers",
        affected="<5.0.0rc3",
        means="Trainer reads a checkpoint's rng_state.pth as a pickle with torch below 2.6. Not called here.",
        do="pip install 'transformers>=5.3' where you train with it too.",
    ),
    Advisory(
        ids="CVE-2025-14920, -14921, -14926, -14927, -14930",
        package="transformers",
        affected="<5.3",
        means="Loaders and conversion scripts of single families run what a checkpoint says. They read pickles or are "
        "called by hand; a build refuses pickled weights and calls none of the scripts.",
        do="pip install 'transformers>=5.3' where you convert checkpoints with it.",
    ),
    Advisory(
        ids="CVE-2025-32434",
        package="torch",
        affected="<2.6",
        means="A pickle runs code in spite of weights_only. A build refuses pickled weights with such a torch.",
        do="pip install 'torch>=2.10,<2.14', or use safetensors alone.",
    ),
    Advisory(
        ids="CVE-2026-24747",
        package="torch",
        affected="<2.10",
        means="A pickle that is read with weights_only can corrupt memory, and so run code. It concerns builds with "
        "handler.allow_pickle: true.",
        do="pip install 'torch>=2.10,<2.14', or use safetensors alone.",
    ),
    Advisory(
        ids="CVE-2025-27516, CVE-2024-56326, CVE-2024-56201",
        package="jinja2",
        affected="<3.1.6",
        means="A chat template gets out of its sandbox, and answers with the server's environment. The handler of text "
        "generation refuses chats with such a jinja2, on servers too.",
        do="pip install 'jinja2>=3.1.6', in the servers' environment as well.",
    ),
    Advisory(
        ids="CVE-2025-68146, CVE-2026-22701",
        package="filelock",
        affected="<3.20.3",
        means="Who can write to the cache's folder locks/ can have a file of yours emptied by a link there.",
        do="pip install 'filelock>=3.20.3'.",
    ),
    Advisory(
        ids="CVE-2021-21295, CVE-2021-21409, CVE-2021-37136, CVE-2021-37137, CVE-2021-43797, CVE-2023-44487 and others",
        package="torchserve",
        affected="",
        means="TorchServe was archived on 2025-08-07, and gets no security patches: 0.12 is the last release, with the "
        "HTTP library Netty 4.1.53 of October 2020. It takes a request with two lengths, and answers pipelined "
        "requests out of order.",
        do="Keep it on loopback, as config.properties has it, behind a proxy that normalises HTTP and does not "
        "pipeline.",
    ),
)


def installed(name: str) -> str | None:
    """The version of a distribution; None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def found(version: Callable[[str], str | None] = installed) -> dict[str, tuple[str, list[Advisory]]]:
    """By distribution: the version that is installed, and the advisories that concern it. Those without any are left
    out."""
    here = {advisory.package: version(advisory.package) for advisory in ADVISORIES}
    told = {
        name: (release, [one for one in ADVISORIES if one.package == name and one.concerns(release)])
        for name, release in here.items()
        if release
    }
    return {name: (release, those) for name, (release, those) in told.items() if those}


def table() -> str:
    """All of them as a table in Markdown."""
    rows = [
        f"| {one.package} | {one.affected or 'all'} | {one.ids} | {one.means} | {one.do} |".replace("<", "&lt;")
        for one in ADVISORIES
    ]
    return "\n".join(
        ["| package | versions | advisory | what it means here | what to do |", "|---|---|---|---|---|", *rows]
    )
