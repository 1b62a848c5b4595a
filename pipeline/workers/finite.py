"""Worker side: whether all weights are finite numbers. One NaN makes every answer that it takes part in NaN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..model.checkpoint import CONFIG, read_json
from . import untrained

if TYPE_CHECKING:
    from ..portable.protocol import Report


def check(job: dict[str, Any], report: Report) -> None:
    """Read a checkpoint's safetensors files. If a value is not finite, load the model, which is refused unless it has
    no such weight. Loading every model only for this would take longer."""
    from safetensors import safe_open

    folder = Path(job["checkpoint"])
    files = sorted(folder.glob("*.safetensors"))
    untrained.refuse_layers(read_json(folder / CONFIG), sum(map(len, untrained.stored(folder).values())))
    for number, file in enumerate(files):
        report("checking the weights", number, len(files))
        with safe_open(file, framework="pt") as weights:
            if any(_bad(weights.get_tensor(name)) for name in weights.keys()):  # noqa: SIM118
                from .loading import model

                model(job)
                return


def refuse(model: Any, dtype: str) -> None:
    """Raise InputError if a parameter of the model, which was loaded in `dtype`, is not finite. Buffers may be: masks
    have infinite values."""
    bad = {name: counts for name, weight in model.named_parameters() if any(counts := _bad(weight.detach()))}
    if not bad:
        return
    shown = ", ".join(f"{name} has {_words(*counts)}" for name, counts in list(bad.items())[:3])
    more = f", and {len(bad) - 3} more weights have such values" if len(bad) > 3 else ""
    if dtype == "float16" and not any(nan for nan, *_ in bad.values()):
        raise InputError(
            f"The weights do not fit into handler.dtype: float16: {shown}{more}.",
            "Its largest number is 65,504.",
            "Set handler.dtype: float32 or bfloat16.",
        )
    raise InputError(
        f"The checkpoint's weights are not all finite numbers: {shown}{more}.",
        "The training diverged, or its 16-bit numbers overflowed. Answers that depend on these weights would be NaN.",
        "Use an earlier checkpoint of the training, or train again with a lower learning rate, or in bfloat16.",
    )


def _words(nan: int, infinite: int, size: int) -> str:
    parts = [f"{count:,} {word}" for count, word in ((nan, "NaN"), (infinite, "infinite")) if count]
    return f"{' and '.join(parts)} of {size:,} values"


def _bad(weight: Any) -> tuple[int, ...]:
    """The number of NaN, of infinite and of all values; empty if all are finite."""
    import torch

    if not weight.is_floating_point() or weight.is_meta or not weight.numel():
        return ()
    if weight.element_size() == 1:  # float8 has few operations of its own
        weight = weight.float()
    # Faster than a look at each value, and NaN if one is.
    if all(torch.isfinite(end) for end in torch.aminmax(weight)):
        return ()
    nan, infinite = int(weight.isnan().sum()), int(weight.isinf().sum())
    return nan, infinite, weight.numel()
