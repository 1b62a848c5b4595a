"""What makes a config's text no YAML, or none that a config may be: in its letters, bytes and structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

Lines = Sequence[str]
Spoilt = tuple[bytes, int | None]
"""A file's bytes, and the line (from 1) that is to blame where that is certain."""

TextDamage = Callable[[st.DrawFn, Lines], Spoilt]


def joined(lines: Lines) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _indented(draw: st.DrawFn, lines: Lines) -> int:
    return draw(st.sampled_from([at for at, line in enumerate(lines) if line.startswith("  ")]))


def _with(lines: Lines, at: int, *new: str) -> list[str]:
    return [*lines[:at], *new, *lines[at:]]


def _tab(draw: st.DrawFn, lines: Lines) -> Spoilt:
    at = _indented(draw, lines)
    return joined([*lines[:at], "\t" + lines[at].lstrip(), *lines[at + 1 :]]), at + 1


def _dedent(draw: st.DrawFn, lines: Lines) -> Spoilt:
    return joined(_with(lines, _indented(draw, lines) + 1, " zzz: 1")), None


_UNREADABLE = (
    "just words", "@a: 1", "`a: 1", "%a: 1", "}", "]", "a: b: c", "- a", ": 1", "a: [1, 2", "a: {b: 1", "a: 'b",
    'a: "b', 'a: "\\q"', "a: *gone", "a: [1}", "a: - b", "&a", "*gone : 1", "a: &", "? a\n? [b]", "[a]: 1",
    "{a: b}: 1", "a: !", "a: |x\n  b", "a: >9\n b", "a: 'b' c", "? |\n  a\n: 1", "--- {}", "---\na: 1", "...\na: 1",
)  # fmt: skip


def _unreadable(draw: st.DrawFn, lines: Lines) -> Spoilt:
    return joined(_with(lines, draw(st.integers(1, len(lines))), draw(st.sampled_from(_UNREADABLE)))), None


_TOPS = (
    "<<: 1", "<<: [1]", "<<: text", "<<: *gone", "<<: {zzz: 1}", "<<: [{zzz: 1}, {zzz: 2}]", "zzz: &a [*a]",
    "zzz: &a {b: *a}", "zzz: !env HOME", "zzz: !!python/name:os.system", "zzz: !!python/object/apply:os.system [id]",
    "zzz: !!binary aGk=", "zzz: !!set {a, b}", "zzz: !!int x", "zzz: !!float y", "zzz: !!null z", "zzz: !!bool 3",
    "zzz: !!timestamp 2024-01-01", "!!str zzz: 1", "zzz: " + "[" * 40 + "]" * 40, "zzz: " + "[" * 100_000,
    "zzz: " + "{a: " * 100_000, "zzz: " + "- " * 2000, "zzz: [" + "0, " * 20_001 + "]", "zzz: " + "a" * 500_000,
    "zzz" * 100_000 + ": 1", "zzz: " + "9" * 500_000, "'" + "\u0301" * 50_000 + "': 1", "zzz: &a\n" + "zzy: *a",
    "# a note\u2028zzz: 1", "zzz: \U0001f4a5", "zzz: {<<: {zzz: 1}}", "? zzz", "zzz:\n- 1\n- 2", "zzz: 1 # a note",
)  # fmt: skip


def _top(draw: st.DrawFn, lines: Lines) -> Spoilt:
    """Something that no config has, before the first line or after the last."""
    new = draw(st.sampled_from(_TOPS))
    return joined(_with(lines, draw(st.sampled_from([0, len(lines)])), new)), None


def _bomb(draw: st.DrawFn, lines: Lines) -> Spoilt:
    """Aliases of aliases: a few lines that would be millions."""
    width, depth = draw(st.integers(8, 12)), draw(st.integers(6, 12))
    rows = ["z0: &z0 [" + "x, " * width + "]"]
    rows += [f"z{n}: &z{n} [" + f"*z{n - 1}, " * width + "]" for n in range(1, depth)]
    return joined([*lines, *rows]), None


# Never UTF-8: no lead byte, no continuation, an overlong form, a surrogate, beyond Unicode, cut off.
_BYTES = (b"\xff", b"\xfe\xff", b"\xe9", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")
# What YAML allows in no place.
_LETTERS = ("\x00", "\x01", "\x07", "\x08", "\x0b", "\x0c", "\x1b[31m", "\x7f", "\x80", "\x9f", "\ufffe", "\uffff")


def _bytes(draw: st.DrawFn, lines: Lines) -> Spoilt:
    at = draw(st.integers(0, len(lines) - 1))
    rows = [line.encode() for line in lines]
    rows[at] += draw(st.sampled_from([b" # caf", b"", b" "])) + draw(st.sampled_from(_BYTES))
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    return end.join(rows) + end, at + 1


def _letters(draw: st.DrawFn, lines: Lines) -> Spoilt:
    at = draw(st.integers(0, len(lines) - 1))
    rows = list(lines)
    rows[at] += draw(st.sampled_from([" # a note", "", " "])) + draw(st.sampled_from(_LETTERS))
    return joined(rows), at + 1


def _encoding(draw: st.DrawFn, lines: Lines) -> Spoilt:
    encoding = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "cp037", "utf-7"]))
    return "\n".join([*lines, "zzz: é"]).encode(encoding), None


_ELSE = (
    b"", b"\n\n\n", b"# a note\n", b"---\n", b"...\n", b"~\n", b"hello\n", b"5\n", b"- a\n- b\n", b"[]\n", b"{}\n",
    b"''\n", b"\xef\xbb\xbf", b"\0", b"handler:\n", b"handler: {}\n", b'{"architectures": ["GPT2LMHeadModel"]}',
    b"<html></html>", b"PK\x03\x04\x14\0\0\0", b"\x7fELF\x02\x01\x01", b"\x80\x04\x95\x10", b"key = value\n",
    b"[section]\nkey = 1\n", b"import os\nprint(os.name)\n", b"&a\n", b"*a\n", b"!!map\n", b"%YAML 9.9\n---\n",
    b"|\n  text\n", b"\r", b"\t\n",
)  # fmt: skip


def _else(draw: st.DrawFn, _lines: Lines) -> Spoilt:
    """Another file altogether."""
    return draw(st.sampled_from(_ELSE)), None


def _cut(draw: st.DrawFn, lines: Lines) -> Spoilt:
    """The end is lost in the middle of a quoted text."""
    rows = [
        *lines[: draw(st.integers(0, len(lines)))],
        draw(st.sampled_from(['zzz: "cut', "zzz: 'cut", "'zzz", '"zzz'])),
    ]
    return "\n".join(rows).encode(), None


OF_TEXT: dict[str, TextDamage] = {
    "a tab": _tab,
    "indented by one": _dedent,
    "a line that cannot be read": _unreadable,
    "what no config has": _top,
    "an alias bomb": _bomb,
    "bytes that are no UTF-8": _bytes,
    "letters that YAML does not allow": _letters,
    "another encoding": _encoding,
    "another file": _else,
    "cut in a quoted text": _cut,
}
