"""Worker side: why transformers does not load a checkpoint, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, MarError, disk_is_full
from ..model.checkpoint import CONFIG, read_json
from ..model.values import attention, quantization


@contextmanager
def loading(job: dict[str, Any]) -> Iterator[None]:
    """Turn any error of transformers while it loads the job's model into InputError: settings with strange values, and
    a model's own code, may raise anything."""
    try:
        yield
    except MarError:
        raise
    except Exception as error:
        if disk_is_full(error):
            raise
        refuse_untrusted(error)
        import transformers

        raise InputError(
            f"transformers {transformers.__version__} cannot load this checkpoint as {job['auto_class']}: "
            f"{first_line(error)}",
            *_reason(error, job),
        ) from None


@contextmanager
def quantized(job: dict[str, Any]) -> Iterator[None]:
    """Give InputErrors about weights the reason that a quantized checkpoint has for them."""
    try:
        yield
    except InputError as error:
        if method := quantization(read_json(Path(job["checkpoint"]) / CONFIG)):
            raise InputError(
                error.what,
                f"Its config.json says that the weights are quantized ({method}). They are not, or the installed "
                "transformers does not know this method.",
                "Upgrade transformers, or use weights that are not quantized, with their own config.json.",
            ) from None
        raise


def _reason(error: Exception, job: dict[str, Any]) -> tuple[str, str]:
    """Why that happens, and what to do."""
    config, words = read_json(Path(job["checkpoint"]) / CONFIG), str(error)
    if "Unrecognized configuration class" in words:
        return (
            "The model's architecture has no such head, or is newer than the installed transformers.",
            "Use another --task, or upgrade transformers.",
        )
    if words == "'metadata'":
        return "Its index of weights has no metadata.", 'Add "metadata": {} to it, or save the model again.'
    if method := quantization(config):
        return (
            f"The checkpoint is quantized ({method}), and what that needs is missing here.",
            "Provide what the message asks for, here and on the server, or use weights that are not quantized.",
        )
    asked = job.get("attn_implementation")
    if asked and "attention" in words:
        return (
            f"handler.attn_implementation is {asked}.",
            "Use another one (sdpa, eager), or leave it out.",
        )
    if not asked and attention(config):
        return (
            f"Its config.json asks for this kind of attention: {', '.join(attention(config))}.",
            "Set handler.attn_implementation: sdpa (or eager) to use another one, whatever config.json asks for.",
        )
    if isinstance(error, ImportError):
        return (
            "It needs a package that is not installed, or another version of one.",
            "Install it, here and on the server.",
        )
    return (
        "A value in its config.json or generation_config.json is damaged, or its architecture is newer than the "
        "installed transformers.",
        "Restore these files from the model's source, or upgrade transformers.",
    )


def refuse_untrusted(error: Exception) -> None:
    """Raises InputError if transformers asks to run the model's own code."""
    if "trust_remote_code" in str(error):
        raise InputError(
            "The model needs its own code, which transformers would have to run.",
            "That code can do whatever you can, so read it first.",
            "Then set handler.trust_remote_code: true, and for a Hub model handler.revision to the commit you read.",
        ) from None


def first_line(error: BaseException) -> str:
    """An error's text in a line. Some texts say nothing without the error's type, or without their second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    words = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    plain = words and isinstance(error, ValueError | ImportError | OSError)
    return words if plain else f"{type(error).__name__}: {words}".removesuffix(": ")
