"""The types of a config's values: ranges, validators and their messages."""

from __future__ import annotations

import math
import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from ..archive import formats
from ..host.chips import CHIPS
from ..tasks import MODES, TASKS
from ..tasks import find as find_task
from ..text import shown

COMPILED = tuple(CHIPS)
"""AWS Inferentia: `neuron` (Inf1) and `neuronx` (Inf2, Trn1), whose graphs are compiled for fixed shapes."""
HARDWARE = ("cpu", "gpu", *COMPILED)

LONGEST = 1_000_000
"""The largest max_length, in tokens."""

LARGEST = 2**31 - 1
"""The largest value of a number that TorchServe's front end reads (a Java Integer)."""


class Section(BaseModel):
    """A section of the file: immutable, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def complain(message: str) -> PydanticCustomError:
    """A validation error whose message is shown to the user unchanged."""
    return PydanticCustomError("mar", "{message}", {"message": message})


def _number(value: Any) -> Any:
    """The number in a text: YAML 1.1 reads an unquoted 1e-4 as text. Any other value is returned unchanged."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value):
        number = float(value)
        return number if math.isfinite(number) else value
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _task_name(value: str) -> str:
    if find_task(value) is None:
        raise PydanticCustomError("choice", "{choices}", {"choices": tuple(dict.fromkeys((*MODES, *TASKS)))})
    return value


def _hardware(value: str) -> str:
    if value not in HARDWARE:
        raise PydanticCustomError("choice", "{choices}", {"choices": HARDWARE})
    return value


def _ascending(value: list[int]) -> list[int]:
    if twice := [length for length in value if value.count(length) > 1]:
        raise complain(f"contains {twice[0]} twice")
    return sorted(value)


def _words(value: Any) -> Any:
    """The words of a command line, from a text or a list of texts."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise complain(f"is not a command line: {error}") from None
    return value


def _labels(value: Any) -> Any:
    """Label names by index, from a list or from a mapping of index to name."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        raise complain(f"expected a list of names, or a mapping of index to name, got {shown(value)}")
    names = {}
    for key, name in value.items():
        try:
            names[int(key)] = name
        except ValueError:
            raise complain(f"{shown(key)} is not the index of a label: 0, 1, 2, ...") from None
    if not names:
        raise complain("is empty: expected one name at least")
    if missing := sorted(set(range(len(value))) - names.keys()):
        raise complain(f"lacks the label {missing[0]}: the indices must run from 0 without a gap")
    owners: dict[str, int] = {}
    for index, name in sorted(names.items()):
        if not isinstance(name, str) or not name.strip():
            raise complain(f"the name of label {index} is {shown(name)}, and not a text")
        if owners.setdefault(name, index) != index:
            raise complain(f"labels {owners[name]} and {index} have the same name, {shown(name)}")
    return dict(sorted(names.items()))


def _without_suffix(name: str) -> str:
    if name.endswith(formats.SUFFIXES):
        raise complain(f"{shown(name)}: give it without {' or '.join(formats.SUFFIXES)}, which archive.format decides")
    return name


def _samples(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise complain("is empty" if value == [] else f"expected a list of requests, got {shown(value)}")
    for index, sample in enumerate(value):
        if not (isinstance(sample, str) and sample.strip()) and not (isinstance(sample, dict) and sample):
            empty = isinstance(sample, str | dict)
            what = "is empty" if empty else f"is {shown(sample)}, and neither a mapping nor a text"
            raise complain(f"request {index} {what}")
    return value


def _not_a_chip(value: Any) -> Any:
    if value in HARDWARE:
        why = "is a section with settings of the compiler; to choose where the model runs, set"
        raise complain(f"{why} handler.hardware: {value} instead")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
TaskName = Annotated[str, AfterValidator(_task_name)]
Hardware = Annotated[str, AfterValidator(_hardware)]
Length = Annotated[int, Field(ge=4, le=LONGEST)]
Lengths = Annotated[
    Annotated[Length, Tag("[one]")]
    | Annotated[list[Length], Field(min_length=1), AfterValidator(_ascending), Tag("[some]")],
    Discriminator(lambda value: "[some]" if isinstance(value, list) else "[one]"),
]
Labels = Annotated[dict[int, str], BeforeValidator(_labels)]
Words = Annotated[list[str] | None, BeforeValidator(_words)]
Samples = Annotated[list[Any], BeforeValidator(_samples)]
Revision = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,200}$")]
ArchiveName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$", max_length=200), AfterValidator(_without_suffix)
]
ArchiveVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-.+]*$", max_length=64)]
Lowered = BeforeValidator(_lower)
"""For a choice that may be written in capitals."""
NotAChip = BeforeValidator(_not_a_chip)
"""For the section `hardware`: a hint for a config that has a chip's name in its place."""
