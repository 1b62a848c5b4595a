"""The environment variables that child processes get: those that load or serve models, and all others.

This is an allow-list, since a build machine has credentials under names that cannot be listed. Loading and serving need
no network, so proxies, endpoints and package indexes are not on it either.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import InputError

PASS = "MAR_PASS_ENV"
"""The variable in which users list further variables, for a handler of their own."""

NAMES = (
    # The user, the language, and folders.
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "XDG_STATE_HOME",
    # Search paths of programs and libraries.
    "LD_LIBRARY_PATH", "LD_PRELOAD", "JAVA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH",
    "ROCM_HOME", "ROCM_PATH", "CC", "CXX", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
    # Python's own (`python --help-env`), but not PYTHONOPTIMIZE: transformers reads docstrings, which -OO removes.
    "PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONNOUSERSITE",
    "PYTHONUSERBASE", "PYTHONSAFEPATH", "PYTHONWARNINGS", "PYTHONFAULTHANDLER", "PYTHONMALLOC",
    "PYTHONDEVMODE", "PYTHON_CPU_COUNT", "PYTHON_GIL", "PYTHON_JIT",
    # Memory: glibc, jemalloc, tcmalloc.
    "GLIBC_TUNABLES", "MALLOC_CONF",
    # Threads and processors.
    "LRU_CACHE_CAPACITY", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "PJRT_DEVICE", "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION", "ZE_AFFINITY_MASK", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS",
    "NEURON_COMPILE_CACHE_URL",
    # Folders and log levels of Hugging Face's libraries.
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_HUB_VERBOSITY",
    "TRANSFORMERS_CACHE", "TRANSFORMERS_VERBOSITY", "TRANSFORMERS_NO_ADVISORY_WARNINGS",
    # Paths of certificates, which a user's own handler may need.
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # Variables that TorchServe sets for its workers (ConfigManager.getBackendConfiguration, WorkerLifeCycle).
    "LOG_LOCATION", "METRICS_LOCATION", "LOGLEVEL", "TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE",
    "TS_IPEX_GPU_ENABLE",
)  # fmt: skip

PREFIXES = (
    "LC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "GOTO_", "VECLIB_", "NUMEXPR_", "ONEDNN_", "DNNL_",
    "MALLOC_", "TCMALLOC_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "AOT_INDUCTOR_", "PYTORCH_", "TRITON_",
    "CUDA_", "CUDNN_", "NCCL_", "GLOO_", "XLA_", "NEURON_",
)  # fmt: skip
"""Prefixes of libraries that read too many variables to list, none of them a credential."""

# Somebody may have put a credential under one of these prefixes.
_CREDENTIAL = "TOKEN|SECRET|PASSW|PASSPHRASE|PWD|KEY|CREDENTIAL|AUTH|URL"

# For Python and for Java (blacklist_env_vars). (?s): a variable's name may contain a line break.
_ALLOWED = "{names}|(?:{prefixes})(?!.*(?i:{credential})).*"

_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s@]*@")

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # The file with the token of `hf auth login`; other stored tokens are in the same folder.
    "HF_TOKEN_PATH": "/dev/null",
}
"""Set in every child process: no network, and no token of the user."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def passed(source: Mapping[str, str] | None = None) -> list[str]:
    """The names that MAR_PASS_ENV lists. Raises InputError for one that is not a valid name."""
    names = [name.strip() for name in (os.environ if source is None else source).get(PASS, "").split(",")]
    for name in names:
        if name and not _NAME.fullmatch(name):
            raise InputError(
                f"{PASS} lists {name!r}, which cannot be a variable's name.",
                "It takes exact names, separated by commas, without patterns or values.",
                f"Write {PASS}=MY_SETTING,ANOTHER",
            )
    return [name for name in names if name]


def allowed(more: Iterable[str] = ()) -> str:
    """A regular expression for the allowed names: those of the lists, and `more`."""
    names = dict.fromkeys((*NAMES, *OFFLINE, *more))
    return _ALLOWED.format(names="|".join(names), prefixes="|".join(PREFIXES), credential=_CREDENTIAL)


def withheld(more: Iterable[str] = ()) -> str:
    """A regular expression for all other names, for TorchServe's blacklist_env_vars."""
    return f"(?s)(?!(?:{allowed(more)})$).*"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process: the variables on the lists, those that MAR_PASS_ENV names, and `extra`, which
    overrides both. A URL with a password is passed only under a name in MAR_PASS_ENV. Raises InputError if MAR_PASS_ENV
    has an invalid name."""
    named = passed()
    pattern = re.compile(allowed(), re.DOTALL)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in named or (pattern.fullmatch(name) and not _ADDRESS_WITH_PASSWORD.search(value))
    }
    return kept | OFFLINE | dict(extra or {})


LIBRARIES = ("torch.py", "transformers.py", "tokenizers.py", "safetensors.py")
"""File names that would be imported instead of a library if their folder is on PYTHONPATH."""


def search_path(path: str, *names: str) -> str:
    """A PYTHONPATH without empty parts, and without folders that contain a file or folder with one of these names."""
    parts = [part for part in path.split(os.pathsep) if part]
    return os.pathsep.join(part for part in parts if not any((Path(part) / name).exists() for name in names))


# linux/prctl.h
_PR_SET_DUMPABLE = 4


def hide() -> None:
    """Hide this process's environment from its children. A process of the same user can read /proc/PID/environ, the
    memory that held the environment when the program started. So the variables are copied elsewhere, that memory is
    overwritten, and the process is marked as not dumpable (prctl(2)), so that only root can read its memory.

    This stops a handler that reads /proc. It is not a sandbox: the handler can still read the user's files. On other
    systems than Linux it does nothing.
    """
    with suppress(OSError, AttributeError, ValueError, IndexError):
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        # Fields 3 and up come after the name; 50 and 51 are the start and the end of the environment (proc(5)).
        start, end = (int(field) for field in stat.rpartition(")")[2].split()[47:49])
        for name, value in list(os.environ.items()):
            # Setting a variable makes the C library copy it.
            os.environ[name] = value
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
