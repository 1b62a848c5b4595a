"""Explains from TorchServe's logs why a model does not load. Pure functions of text.

`model_log.log` has the output of the workers, `ts_log.log` the server's own records:

    2026-11-24T12:07:47,172 [INFO ] W-9000-NAME_1.0-stdout MODEL_LOG - Traceback (most recent call last):
    2026-11-24T12:07:47,543 [DEBUG] W-9000-NAME_1.0 org...WorkerThread - ... WORKER_STARTED -> WORKER_STOPPED
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RECORD = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT[\d:,]+) \[\w+ *\] (?P<thread>\S+) (?P<logger>\S+) - (?P<text>.*)")
_EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")

# Exceptions that TorchServe raises after the handler's own: it looks for a handler that it cannot import among its
# built-in ones, and ends a worker that fails to load.
_ON_TOP = re.compile(
    r"No module named 'ts\.torch_handler\.|RuntimeError: 50[07] - (Unknown exception|System out of memory)"
)


@dataclass(frozen=True)
class Record:
    """One record of a log, with its continuation lines, such as a Java stack trace."""

    time: str
    thread: str
    logger: str
    text: str


@dataclass(frozen=True)
class Death:
    """Why a worker died: the exception's line, the usual cause, what to do, and the worker's whole traceback."""

    line: str
    why: str
    fix: str
    details: str
    certain: bool = True  # False if another attempt may succeed


# Searched in the exception's line, then in the whole traceback. The first match counts.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        # Without a manifest, TorchServe uses the name of the unpacked folder as the handler.
        r"No module named '[0-9a-f]{32}'|'NoneType' object has no attribute 'split'",
        "It has no handler: its MAR-INF/MANIFEST.json is missing or unreadable, so it is not an archive.",
        "Build it again with `mar build`.",
    ),
    (
        r"no NeuronCore is free",
        "Other workers, of this archive or of others, or other programs use the machine's NeuronCores.",
        "Serve fewer models or workers there, or a larger machine; `mar smoke FILE.mar` tries one by itself.",
    ),
    (
        # The sentences of handlers/runtimes/neuron_package.py.
        r"NeuronCore|torch-neuronx?\b",
        "The archive was compiled for AWS Inferentia, and cannot run on this machine or in this environment.",
        "Follow the message above; docs/how-to/inferentia.md lists what such a server needs.",
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",
        "The archive's code imports {module}, which is not installed in the Python that serves it.",
        "Install it there (`{python} -m pip install` the package of {module}), or build with a handler that "
        "does not need it.",
    ),
    (
        r"Expected only one class in custom service code",
        "TorchServe uses the only class of a handler file as the handler, and this file defines none or several.",
        "Keep exactly one class in the handler file and move the others to a module beside it.",
    ),
    (
        r"Expect handle method in class",
        "The class in the handler file has no `handle` method.",
        "Give it `initialize(self, context)` and `handle(self, data, context)`.",
    ),
    (
        r"No space left on device|Errno 28",
        "TorchServe unpacks every archive into its temporary folder, and that disk is full.",
        "Free some space, or set TMPDIR to a folder on a larger disk.",
    ),
    (
        r"CUDA out of memory|CUBLAS_STATUS_NOT_INITIALIZED",
        "The model does not fit into the GPU's free memory.",
        "Use fewer workers (maxWorkers), a smaller dtype, or a GPU that no other program uses.",
    ),
    (
        r"CUDA|NVIDIA driver|cuDNN|HIP error",
        "The archive needs a GPU, which this machine or this build of torch does not support.",
        "Build it with handler.hardware: cpu, or serve it where `nvidia-smi` and torch see the GPU.",
    ),
    (
        r"MemoryError|not enough memory|[Cc]annot allocate memory|OutOfMemory",
        "The machine has too little free memory for this model and its workers.",
        "Use fewer workers (maxWorkers), free memory, or serve it on a larger machine.",
    ),
    (
        r"SafetensorError|PytorchStreamReader|BadZipFile|EOFError|UnpicklingError|unexpected pos",
        "A weights file in the archive is truncated or damaged.",
        "Build it again with `mar build --force archive`.",
    ),
    (
        r"FileNotFoundError|IsADirectoryError|PermissionError",
        "The handler reads a file that is not in the archive, or may not read it.",
        "Build it again with `mar build`; files of your own have to be in the archive.",
    ),
    (
        r"huggingface\.co|HF_HUB_OFFLINE|offline mode|ConnectionError|MaxRetryError|LocalEntryNotFoundError",
        "The handler tries to download something, and archives are served without network access.",
        "Build it with `mar build`, which packs the tokenizer and the weights.",
    ),
    (
        r"ImportError",
        "A package that the archive's code needs is installed in a different version than it was written for.",
        "Compare `mar doctor` with the versions in the archive's provenance.json.",
    ),
    (r"SyntaxError|IndentationError", "The handler file is not valid for this version of Python.", "Fix that line."),
)
_OTHER = ("The handler raised this while it loaded the model.", "Look at the traceback in {log}.")
_SILENT = (
    "It left no traceback: usually the system ran out of memory and killed it, or a native library crashed.",
    "Look at `dmesg`, use fewer workers, or serve it on a larger machine.",
)
_SLOW = (
    "Loading the model took longer than its start-up time-out (startupTimeout, 120 s unless set).",
    "Set startupTimeout to more seconds in the config and build again, or find out what the handler waits for.",
)

_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"EOFException|ZipException|ZIP|GZIP|Gzip|not in .*format|Corrupted|TarException",
        "The file is truncated or is not an archive.",
        "Copy it again, or build it again with `mar build`.",
    ),
    (
        r"Model not found at",
        "There is no such file or folder in the model store.",
        "Build it with `mar build`, or remove its name from load_models in config.properties.",
    ),
    (
        r"No space left",
        "TorchServe unpacks every archive into its temporary folder, and that disk is full.",
        "Free some space, or set TMPDIR to a folder on a larger disk.",
    ),
    (
        r"already registered|ConflictStatus",
        "Another archive of the model store has the same name.",
        "Remove one of them from the model store.",
    ),
    (
        r"allowed URL",
        "allowed_urls in config.properties does not allow this URL.",
        "Put the archive into the model store and add it to load_models.",
    ),
)


def records(log: str) -> list[Record]:
    """The records of a log, oldest first."""
    parsed: list[Record] = []
    for line in log.splitlines():
        match = _RECORD.match(line)
        if match:
            parsed.append(Record(match["time"], match["thread"], match["logger"], match["text"]))
        elif parsed:
            last = parsed[-1]
            parsed[-1] = Record(last.time, last.thread, last.logger, f"{last.text}\n{line}")
    return parsed


def of_model(log: str, name: str) -> list[Record]:
    """The records of the server's threads for the workers of `name`, including the workers' output."""
    thread = re.compile(rf"W-\d+-{re.escape(name)}_[^_]*")
    return [record for record in records(log) if thread.fullmatch(record.thread)]


def printed(model_log: str, name: str) -> str:
    """The output of the workers of `name`."""
    return "\n".join(record.text for record in of_model(model_log, name))


def deaths(server_log: str, name: str) -> int:
    """How often a worker of `name` died."""
    # TorchServe's log settings write each of these records twice.
    stops = {
        (record.time, record.thread)
        for record in of_model(server_log, name)
        if record.text.endswith("-> WORKER_STOPPED") and record.logger.endswith("WorkerThread")
    }
    return len(stops)


def explain(server_log: str, model_log: str, name: str, *, python: str = "python", log: str = "the log") -> Death:
    """Why a worker of `name` died last, by the logs."""
    output = printed(model_log, name)
    # A worker prints these lines first, so they separate attempts; the last may not have a traceback yet.
    attempts = [
        part
        for part in re.split(r"(?m)^(?:s_name_part0=|Listening on )", output)
        if "Traceback (most recent call last)" in part
    ]
    if not attempts:
        history = [record.text for record in of_model(server_log, name)]
        if any("did not respond in given time" in text for text in history):
            return Death("its worker did not answer in time", *_SLOW, output)
        return Death("its worker died", *_SILENT, output, certain=False)
    details = attempts[-1][attempts[-1].index("Traceback (most recent call last)") :].strip()
    line = cause(details)
    for text in (line, details):
        for pattern, why, fix in _CAUSES:
            match = re.search(pattern, text)
            if match:
                values = {"python": python, "log": log, **match.groupdict()}
                return Death(line, why.format(**values), fix.format(**values), details)
    return Death(line, _OTHER[0], _OTHER[1].format(log=log), details)


def cause(traceback: str) -> str:
    """The line of the exception to show: the last of the chain that is not TorchServe's own."""
    lines: list[str] = []
    inside = False
    for line in traceback.splitlines():
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line and not line[0].isspace() and _EXCEPTION.match(line):
            lines.append(line)
            inside = False
    own = [line for line in lines if not _ON_TOP.search(line)]
    return (own or lines or ["unknown"])[-1]


def refusal(server_log: str, archive: str) -> Death | None:
    """Why TorchServe refused `archive` (its name in the model store); None if the log has no refusal of it."""
    for record in reversed(records(server_log)):
        if record.text.startswith("Failed to load model: ") and record.text.splitlines()[0].endswith(archive):
            lines = record.text.splitlines()
            line = lines[1].rsplit(".", 1)[-1] if len(lines) > 1 and ": " not in lines[1] else ": ".join(lines[1:2])
            for pattern, why, fix in _REFUSALS:
                if re.search(pattern, record.text):
                    return Death(line, why, fix, record.text)
            return Death(line, "TorchServe cannot read it.", "Build it again with `mar build`.", record.text)
    return None


def end(output: str, code: int | None) -> tuple[str, str, str]:
    """What happened, why, and what to do when the server ended with exit code `code`, by its output."""
    bound = re.search(r"Failed to bind to address:? (\S+)", output)
    if bound or "Address already in use" in output:
        place = f" ({bound[1]})" if bound else ""
        return (
            f"TorchServe ended: a port that it needs is in use{place}.",
            "Another program took it after the check and before the start.",
            "Start it again.",
        )
    if "OutOfMemoryError" in output or code == -9:
        return (
            "TorchServe's Java process ran out of memory, or was killed.",
            "The machine is too small for it, or someone ended it.",
            "Free memory, and start it again.",
        )
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    return (
        f"TorchServe ended by itself, with exit code {code}.",
        lines[-1][:300] if lines else "It printed nothing.",
        "See `mar doctor`: usually it is Java, memory, or a full disk.",
    )
