"""The environment variables of the processes that load or serve models, and of every other program that is started.

It is a list of what they get, and not of what they must not get: a build machine's environment holds credentials under
names that nobody can list. Loading and serving need no network, so no proxy, endpoint or package index is in it either.
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
"""The variable that names further ones, which a user's own handler needs."""

NAMES = (
    # The user, the language, and where files go.
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "XDG_STATE_HOME",
    # How programs and libraries are found.
    "LD_LIBRARY_PATH", "LD_PRELOAD", "JAVA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH",
    "ROCM_HOME", "ROCM_PATH", "CC", "CXX", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
    # Python's own (`python --help-env`).
    "PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONNOUSERSITE",
    "PYTHONUSERBASE", "PYTHONSAFEPATH", "PYTHONWARNINGS", "PYTHONFAULTHANDLER", "PYTHONMALLOC", "PYTHONOPTIMIZE",
    "PYTHONDEVMODE", "PYTHON_CPU_COUNT", "PYTHON_GIL", "PYTHON_JIT",
    # Memory: glibc, jemalloc, tcmalloc.
    "GLIBC_TUNABLES", "MALLOC_CONF",
    # Threads and processors.
    "LRU_CACHE_CAPACITY", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "PJRT_DEVICE", "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION", "ZE_AFFINITY_MASK", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS",
    "NEURON_COMPILE_CACHE_URL",
    # Where the libraries of Hugging Face keep files, and how much they say.
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_HUB_VERBOSITY",
    "TRANSFORMERS_CACHE", "TRANSFORMERS_VERBOSITY", "TRANSFORMERS_NO_ADVISORY_WARNINGS",
    # Certificates that a handler of your own may need; paths.
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # What TorchServe hands to its workers (ConfigManager.getBackendConfiguration, WorkerLifeCycle).
    "LOG_LOCATION", "METRICS_LOCATION", "LOGLEVEL", "TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE",
    "TS_IPEX_GPU_ENABLE",
)  # fmt: skip

PREFIXES = (
    "LC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "GOTO_", "VECLIB_", "NUMEXPR_", "ONEDNN_", "DNNL_",
    "MALLOC_", "TCMALLOC_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "AOT_INDUCTOR_", "PYTORCH_", "TRITON_",
    "CUDA_", "CUDNN_", "NCCL_", "GLOO_", "XLA_", "NEURON_",
)  # fmt: skip
"""Libraries that read more variables than a list can name, none of them a credential."""

# Under a prefix anybody may have put something of their own.
_CREDENTIAL = "TOKEN|SECRET|PASSW|PASSPHRASE|PWD|KEY|CREDENTIAL|AUTH|URL"

# Read by Python and by Java (blacklist_env_vars) alike; (?s) since a variable's name may hold a line break.
_ALLOWED = "{names}|(?:{prefixes})(?!.*(?i:{credential})).*"

_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s@]*@")

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # Where the token of `hf auth login` is looked for, and beside it all stored ones.
    "HF_TOKEN_PATH": "/dev/null",
}
"""What each of them gets: no network, and no token of the user's."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def passed(source: Mapping[str, str] | None = None) -> list[str]:
    """The names that MAR_PASS_ENV lists. Raises InputError for what cannot be a name."""
    names = [name.strip() for name in (os.environ if source is None else source).get(PASS, "").split(",")]
    for name in names:
        if name and not _NAME.fullmatch(name):
            raise InputError(
                f"{PASS} lists {name!r}, which cannot be a variable's name.",
                "It takes exact names with commas between them, no patterns and no values.",
                f"Write {PASS}=MY_SETTING,ANOTHER",
            )
    return [name for name in names if name]


def allowed(more: Iterable[str] = ()) -> str:
    """The regular expression of the names that pass, with `more` beside the lists."""
    names = dict.fromkeys((*NAMES, *OFFLINE, *more))
    return _ALLOWED.format(names="|".join(names), prefixes="|".join(PREFIXES), credential=_CREDENTIAL)


def withheld(more: Iterable[str] = ()) -> str:
    """The regular expression of all other names: a value for TorchServe's blacklist_env_vars."""
    return f"(?s)(?!(?:{allowed(more)})$).*"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program that we start: what is on the lists, what MAR_PASS_ENV names, and `extra`, which
    goes before them. An address with a password in it is not handed on under any name but those that it names. Raises
    InputError for a MAR_PASS_ENV that cannot be read."""
    named = passed()
    pattern = re.compile(allowed(), re.DOTALL)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in named or (pattern.fullmatch(name) and not _ADDRESS_WITH_PASSWORD.search(value))
    }
    return kept | OFFLINE | dict(extra or {})


LIBRARIES = ("torch.py", "transformers.py", "tokenizers.py", "safetensors.py")
"""Files of a user's own that would be imported in place of a library, if their folder is on PYTHONPATH."""


def search_path(path: str, *names: str) -> str:
    """A PYTHONPATH without its empty parts, and without folders that hold a file or folder of one of these names."""
    parts = [part for part in path.split(os.pathsep) if part]
    return os.pathsep.join(part for part in parts if not any((Path(part) / name).exists() for name in names))


# linux/prctl.h
_PR_SET_DUMPABLE = 4


def hide() -> None:
    """Keep what we were started with from the processes that we start. Another process of the same user can read
    /proc/PID/environ, which is where a program's environment lay when it began: so the variables are moved, the place
    is overwritten, and the process is marked as not to be looked into (prctl(2); root may all the same).

    It stops a handler that looks around, and is no sandbox: files of the user's are still the user's. Elsewhere than on
    Linux it does nothing.
    """
    with suppress(OSError, AttributeError, ValueError, IndexError):
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        # After the name come fields 3 and up; 50 and 51 are where the environment begins and ends (proc(5)).
        start, end = (int(field) for field in stat.rpartition(")")[2].split()[47:49])
        for name, value in list(os.environ.items()):
            # The C library keeps a copy of its own for what is set.
            os.environ[name] = value
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
