"""Security advisories of the libraries that builds and servers use, in the versions that this package allows: for `mar
doctor`, and for the generated page docs/reference/advisories.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One vulnerability or several of a kind, by `ids`, in the `affected` versions of a package (a PEP 440 range; "" is
    all): what it `means` for this program, and what to `do`."""

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
        means="A config.json with trust_remote_code inside makes it run the model's own code, although "
        "handler.trust_remote_code is false. Builds refuse such a file before transformers reads it.",
        do="pip install 'transformers>=5.3'; with an older one, build models that you trust.",
    ),
    Advisory(
        ids="CVE-2026-4372",
        package="transformers",
        affected=">=4.56,<5.3",
        means="A config.json can name a kernel on the Hub, whose code runs if the package kernels is installed. "
        "Models are loaded without network here, so it runs only if it is cached already.",
        do="pip install 'transformers>=5.3', or pip uninstall kernels.",
    ),
    Advisory(
        ids="CVE-2026-1839",
        package="transformers",
        affected="<5.0.0rc3",
        means="Trainer reads a checkpoint's rng_state.pth as a pickle with torch below 2.6. Not called here.",
        do="pip install 'transformers>=5.3' if you also train with it.",
    ),
    Advisory(
        ids="CVE-2025-14920, -14921, -14926, -14927, -14930",
        package="transformers",
        affected="<5.3",
        means="Loaders and conversion scripts of single model families run a checkpoint's code. They read pickles or "
        "are started by hand; a build refuses pickled weights and does not start the scripts.",
        do="pip install 'transformers>=5.3' if you convert checkpoints with it.",
    ),
    Advisory(
        ids="CVE-2025-32434",
        package="torch",
        affected="<2.6",
        means="A pickle runs code in spite of weights_only. A build refuses pickled weights with such a torch.",
        do="pip install 'torch>=2.10,<2.14', or use only safetensors.",
    ),
    Advisory(
        ids="CVE-2026-24747",
        package="torch",
        affected="<2.10",
        means="A pickle that is read with weights_only can corrupt memory and run code. It affects builds with "
        "handler.allow_pickle: true.",
        do="pip install 'torch>=2.10,<2.14', or use only safetensors.",
    ),
    Advisory(
        ids="CVE-2025-27516, CVE-2024-56326, CVE-2024-56201",
        package="jinja2",
        affected="<3.1.6",
        means="A chat template can leave its sandbox and read the server's environment. The text generation handler "
        "refuses chats with such a jinja2, on servers too.",
        do="pip install 'jinja2>=3.1.6', in the servers' environment as well.",
    ),
    Advisory(
        ids="CVE-2025-68146, CVE-2026-22701",
        package="filelock",
        affected="<3.20.3",
        means="Somebody who can write to the cache's folder locks/ can truncate your files with a link there.",
        do="pip install 'filelock>=3.20.3'.",
    ),
    Advisory(
        ids="CVE-2021-21295, CVE-2021-21409, CVE-2021-37136, CVE-2021-37137, CVE-2021-43797, CVE-2023-44487 and others",
        package="torchserve",
        affected="",
        means="TorchServe was archived on 2025-08-07 and gets no security patches: 0.12 is the last release, with the "
        "HTTP library Netty 4.1.53 of October 2020. It accepts a request with two lengths, and answers pipelined "
        "requests out of order.",
        do="Keep it on loopback, as in the generated config.properties, behind a proxy that normalises HTTP "
        "and does not pipeline.",
    ),
)


def installed(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def applicable(version: Callable[[str], str | None] = installed) -> dict[str, tuple[str, list[Advisory]]]:
    """By package: the installed version, and the advisories that affect it. Packages without any are omitted."""
    here = {advisory.package: version(advisory.package) for advisory in ADVISORIES}
    by_package = {
        name: (release, [one for one in ADVISORIES if one.package == name and one.concerns(release)])
        for name, release in here.items()
        if release
    }
    return {name: (release, those) for name, (release, those) in by_package.items() if those}


def table() -> str:
    """All advisories as a Markdown table."""
    rows = [
        f"| {one.package} | {one.affected or 'all'} | {one.ids} | {one.means} | {one.do} |".replace("<", "&lt;")
        for one in ADVISORIES
    ]
    return "\n".join(
        ["| package | versions | advisory | what it means here | what to do |", "|---|---|---|---|---|", *rows]
    )
