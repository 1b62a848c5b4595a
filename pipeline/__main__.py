"""The command `mar`, or `python -m mar_pipeline`: runs the command line and maps errors to exit codes."""

from __future__ import annotations

import errno
import signal
import sys
import traceback

from .cli import console
from .cli.app import app
from .errors import INTERRUPTED, OK, UNEXPECTED, InputError, MarError, of_the_disk
from .host import environment

_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
"""What the system reports if a path leads to something of another kind, as a folder in the place of a file."""


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The entry point: run the command line and exit with its code."""
    environment.hide()
    sys.exit(run())


def _of_the_system(error: Exception) -> MarError | None:
    """What the system refuses, in words; None for any other error."""
    if isinstance(error, PermissionError) and error.filename:
        return InputError(
            f"{error.filename}: {error.strerror}.",
            "It belongs to another user, or its permissions or the file system keep you out.",
            "Change them (chmod, chown), or name another place.",
        )
    if isinstance(error, OSError) and error.errno in _IN_THE_WAY and error.filename:
        return InputError(
            f"{error.filename2 or error.filename}: {error.strerror}.",
            "Something else is in the place of a file or a folder that this command reads or writes.",
            "Move it away, or name another place.",
        )
    return of_the_disk(error) if isinstance(error, OSError) else None


def run(arguments: list[str] | None = None) -> int:
    """Run the command line (or `arguments`); the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    with console.escaping():
        code = _run(arguments)
        console.drop_unwritten()
        return code


def _run(arguments: list[str] | None) -> int:
    try:
        code = int(app(arguments, standalone_mode=False) or OK)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk has words
        if code == INTERRUPTED:  # how the parser reports a Ctrl-C
            raise KeyboardInterrupt
        return code
    except MarError as error:
        console.failed(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.line("Interrupted. Nothing is left half-done, and finished stages stay cached.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed it (`mar inspect X | head`): write nothing more at exit.
        sys.stderr.close()
        return UNEXPECTED
    except Exception as error:
        if refused := _of_the_system(error):
            console.failed(refused)
            return refused.exit_code
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of the parser
            error.show(file=sys.stderr)
            return int(error.exit_code)
        from .sources import redacted
        from .workers.client import WorkerCrash

        if isinstance(error, WorkerCrash):
            console.line(error)
        else:
            # It may be sent to others.
            sys.stderr.write(redacted(traceback.format_exc()))
        last = str(error).strip().rpartition("\n")[2]
        if isinstance(error, ImportError) or last.startswith(("ImportError", "ModuleNotFoundError")):
            console.line(
                f"Unexpected: a package that {sys.executable} needs is broken or missing; the lines above name it. "
                "Install it again (pip install --force-reinstall ...), or make the environment anew."
            )
            return UNEXPECTED
        console.line(
            "Unexpected: this is a bug in mar-pipeline or in a library that it uses. Please report the lines above."
        )
        return UNEXPECTED


if __name__ == "__main__":
    main()
