"""A filter of system calls (seccomp(2)) for the sandbox: without those whose memory or reach nothing else bounds.

It is a program for Linux's classic BPF, which bubblewrap installs. The numbers are of Linux's asm/unistd_64.h (x86-64)
and asm-generic/unistd.h (ARM); the codes are of linux/bpf_common.h, linux/seccomp.h and linux/audit.h.
"""

from __future__ import annotations

import errno
import platform
import struct

# Numbers by machine. Memory that is no process's; the user's keys; what has had many faults, and no handler needs.
_REFUSED = {
    "x86_64": {
        "memfd_create": 319, "memfd_secret": 447, "add_key": 248, "request_key": 249, "keyctl": 250,
        "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "bpf": 321, "userfaultfd": 323,
        "perf_event_open": 298, "setns": 308,
        # Its flags are in memory, where a filter cannot look; C libraries then use clone.
        "clone3": 435,
    },
    "aarch64": {
        "memfd_create": 279, "memfd_secret": 447, "add_key": 217, "request_key": 218, "keyctl": 219,
        "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "bpf": 280, "userfaultfd": 282,
        "perf_event_open": 241, "setns": 268, "clone3": 435,
    },
}  # fmt: skip
# With these flags in the first argument: a user namespace of its own.
_NEW_USER = 0x10000000
_FLAGGED = {"x86_64": {"clone": 56, "unshare": 272}, "aarch64": {"clone": 220, "unshare": 97}}
# A virtual machine's sockets to its host: no network namespace holds them.
_SOCKET = {"x86_64": 41, "aarch64": 198}
_AF_VSOCK = 40

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
"""The first number of x86-64's second set of calls."""

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def program(machine: str = platform.machine()) -> bytes | None:
    """The filter for a machine, as struct sock_filter has it; None for a machine whose numbers are not here."""
    if machine not in _AUDIT:
        return None
    refused, absent = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, _AUDIT[machine]), absent, (_LOAD, 0, 0, _NUMBER)]
    lines += [(_IF_AT_LEAST, 0, 1, _X32), absent]
    for number in _REFUSED[machine].values():
        lines += [(_IF_EQUAL, 0, 1, number), absent]
    for number in _FLAGGED[machine].values():
        lines += [(_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST), (_IF_ANY, 0, 1, _NEW_USER), refused]
        lines += [(_RETURN, 0, 0, _ALLOW)]
    lines += [(_IF_EQUAL, 0, 3, _SOCKET[machine]), (_LOAD, 0, 0, _FIRST), (_IF_EQUAL, 0, 1, _AF_VSOCK), refused]
    lines += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
