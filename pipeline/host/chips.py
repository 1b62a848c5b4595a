"""The chips that models are compiled for: one table. What ships in archives has a copy of its own, of what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from ..portable.inspection import device_files


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of chip, as `handler.hardware` names it: what compiles for it and runs on it.

    `package` and `compiler_module` are imported; `distribution` and `compiler` are what these come in. `places` are the
    environments of AWS's machine images, `cores` the NeuronCores of the smallest machine (inf1.xlarge, inf2.xlarge),
    `torch` the versions that the package was made for, `python` and `packages` an environment to make.
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
        # The last torch that has PyTorch/XLA, which `trace` goes by.
        packages=("torch-neuronx==2.9.*", "neuronx-cc==2.*", "transformers", "safetensors"),
    ),
)

CHIPS = {chip.name: chip for chip in _ROWS}


def has_chip() -> bool:
    """Whether this machine has a NeuronCore."""
    return bool(device_files())


def option(words: list[str], name: str) -> str | None:
    """The value of an option on a compiler's command line; None if it is not there."""
    for index, word in enumerate(words):
        if word == name:
            return words[index + 1] if index + 1 < len(words) else ""
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
