"""The table of chips that models are compiled for. Archives cannot import it: `handlers.runtimes.CHIPS` has their
part."""

from __future__ import annotations

from dataclasses import dataclass

from ..portable.inspection import device_files


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of chip, by its name in `handler.hardware`, with its compiler.

    `package` and `compiler_module` are modules, `distribution` and `compiler` the distributions that contain them.
    `places` is a pattern for the environments in AWS's machine images, `cores` the number of NeuronCores of the
    smallest machine (inf1.xlarge, inf2.xlarge), `torch` the versions that the package supports. `python` and `packages`
    are what to install a new environment with.
    """

    name: str
    machines: str
    package: str
    distribution: str
    compiler: str
    compiler_module: str
    places: str
    cores: int
    torch: str
    python: str
    packages: tuple[str, ...]


_ROWS = (
    Chip(
        name="neuron",
        machines="Inf1",
        package="torch_neuron",
        distribution="torch-neuron",
        compiler="neuron-cc",
        compiler_module="neuroncc",
        places="aws_neuron_venv_pytorch*",
        cores=4,
        torch="1.13 and older",
        python="python3.10",
        # transformers 4.48 and newer need torch 2.
        packages=("torch-neuron==1.13.*", "neuron-cc[tensorflow]", "protobuf", "transformers<4.48", "safetensors"),
    ),
    Chip(
        name="neuronx",
        machines="Inf2 or Trn1",
        package="torch_neuronx",
        distribution="torch-neuronx",
        compiler="neuronx-cc",
        compiler_module="neuronxcc",
        places="aws_neuronx_venv_pytorch_[0-9]*",
        cores=2,
        torch="2.5 to 2.9",
        python="python3",
        # The last torch with PyTorch/XLA, which `trace` needs.
        packages=("torch-neuronx==2.9.*", "neuronx-cc==2.*", "transformers", "safetensors"),
    ),
)

CHIPS = {chip.name: chip for chip in _ROWS}


def has_chip() -> bool:
    """Whether this machine has a NeuronCore."""
    return bool(device_files())


def option(words: list[str], name: str) -> str | None:
    """The value of an option in a compiler's arguments; None if it is not given, "" if it has no value."""
    for index, word in enumerate(words):
        if word == name:
            return words[index + 1] if index + 1 < len(words) else ""
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
