"""Configs that are right, and what makes each of them wrong: by construction, never by asking what reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

MODES = {
    "seq_classification": "sequence_classification",
    "token_classification": "token_classification",
    "question_answering": "question_answering",
    "text_generation": "text_generation",
}


@dataclass(frozen=True)
class Row:
    """A line `key: value` of a section ("" is the top); `bad` if it is to blame for what is wrong."""

    section: str
    key: str
    value: str
    bad: bool = False


Rows = tuple[Row, ...]


def written(rows: Rows) -> tuple[list[str], set[int]]:
    """The lines of a config file, and the numbers (from 1) of those that are to blame."""
    lines: list[str] = []
    blamed: set[int] = set()
    for section in dict.fromkeys(row.section for row in rows):
        if section:
            lines.append(f"{section}:")
        for row in (row for row in rows if row.section == section):
            lines.append(f"{'  ' if section else ''}{row.key}: {row.value}")
            blamed |= {len(lines)} if row.bad else set()
    return lines, blamed


def _of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


_TRUTH = _of("true", "false", "yes", "no", "on", "off")

# What each key may hold in any config, whatever else that holds.
RIGHT: dict[tuple[str, str], st.SearchStrategy[str]] = {
    ("", "batchSize"): st.integers(1, 512).map(str),
    ("", "maxBatchDelay"): st.integers(0, 5000).map(str),
    ("", "minWorkers"): _of("1"),
    ("", "maxWorkers"): st.integers(1, 64).map(str),
    ("", "responseTimeout"): _of("1", "120", "0x78", "2147483647"),
    ("", "deviceType"): _of("cpu", "CPU"),
    ("", "useVenv"): _TRUTH,
    ("handler", "save_mode"): _of("pretrained", "torchscript", "'pretrained'"),
    ("handler", "max_length"): st.integers(64, 128).map(str),
    ("handler", "hardware"): _of("cpu"),
    ("handler", "captum_explanation"): _TRUTH,
    ("handler", "dtype"): _of("float32", "bfloat16"),
    ("handler", "attn_implementation"): _of("eager", "sdpa"),
    ("archive", "name"): _of("model", "a-b_c.d", "'2'", "no", "1.10"),
    ("archive", "version"): _of("1.0", "1.10", "2024-01-01", "'3'"),
    ("archive", "format"): _of("zip-store", "default", "tgz", "no-archive"),
    ("verify", "tolerance"): _of("1e-3", "0.01", "1", "'1e-4'"),
}
# And those of one task.
RIGHT_FOR: dict[str, dict[tuple[str, str], st.SearchStrategy[str]]] = {
    "seq_classification": {
        ("handler", "top_k"): _of("1", "2"),
        ("verify", "samples"): _of("[a text]", "[{text: Good.}, {text: Bad., top_k: 1}]"),
    },
    "token_classification": {
        ("handler", "aggregation_strategy"): _of("none", "simple", "first", "average", "max"),
        ("handler", "stride"): st.integers(0, 32).map(str),
    },
    "question_answering": {
        ("handler", "max_answer_length"): st.integers(1, 30).map(str),
        ("verify", "samples"): _of("[{question: who?, context: Nora won.}]"),
    },
    "text_generation": {
        ("handler", "generation"): _of("{max_new_tokens: 8}", "{top_p: 0.5, do_sample: true, top_k: 0}"),
    },
}


def least(task: str) -> Rows:
    """The shortest config of a task in which nothing is wrong."""
    return Row("handler", "mode", MODES[task]), Row("handler", "model_name", f"starter:{task}")


@st.composite
def right(draw: st.DrawFn, task: str | None = None) -> Rows:
    """A config in which nothing is wrong."""
    task = task or draw(st.sampled_from(sorted(MODES)))
    rows = [Row("handler", "mode", draw(_of(MODES[task], task))), Row("handler", "model_name", f"starter:{task}")]
    known = {**RIGHT, **RIGHT_FOR[task]}
    for section, key in draw(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=10)):
        rows.append(Row(section, key, draw(known[section, key])))
    return tuple(sorted(rows, key=lambda row: draw(_ORDER) if not row.section else 2))


_ORDER = st.sampled_from([1, 3])


def _task(rows: Rows) -> str | None:
    """The task of a config; None if it is one of what is wrong."""
    modes = {row.value for row in rows if row.key == "mode"}
    return next((task for task, name in MODES.items() if modes & {task, name}), None)


def put(rows: Rows, *new: Row) -> Rows:
    """The rows with these in place of those of the same key, or behind the others."""
    at = {(row.section, row.key): row for row in new}
    kept = [at.pop((row.section, row.key), row) for row in rows]
    return (*kept, *at.values())


def quoted(text: str) -> str:
    """A text as a scalar that YAML reads back as it is."""
    plain = (letter if letter.isprintable() and letter not in '"\\' else f"\\u{ord(letter):04x}" for letter in text)
    return f'"{"".join(plain)}"'


# What is wrong at a key, whatever the rest of the config says.
_WHOLE = ("eight", "'8'", "8.5", "true", "[1]", "{a: 1}", "1:30", "010", "-1", "1e400", ".nan", "9" * 19, "9" * 5000)
_COUNT = (*_WHOLE, "0", "2147483648", "-2147483649", "0x80000000")
_TRUE = ("1", "0", "'yes'", "maybe", "[true]", "{true: true}", "1.0", "''")
_TEXT = ("[a]", "{a: b}")
_CHOICE = (*_TEXT, "bogus", "5", "true", "''", "' '", "'" + "a" * 3000 + "'")
_PART = ("text", "5", "true", "[1, 2]", "''")
_FRACTION = ("small", "true", "[0.1]", "{a: 1}", "0", "-1", "1e999", ".inf", "-.inf", ".nan", "'0x1'", "1.5.2")
_NAMES = (
    "a/b", "/a", "../a", "a/..", ".a", "..", "-a", "_a", " a", "a b", "a,b", "a*", "a?", "[ab]", "{a}", "a\\b", "a:b",
    "~", "a\nb", "a\tb", "a\0b", "modèle", "模型", "a\u200bb", "a\u2028b", "\ufeffa", "a" * 201, "a.mar", "a.tar.gz",
    "$a", "a;b", "a|b", "%41", "'a'", "a\r", "",
)  # fmt: skip
_MODELS = (
    "./gone", "/gone/far", "../gone", "~nobody-here/x", "gone/", "a//b", "a--b/c", "a/b/c", "C:\\gone", "a*b", "a,b",
    ".gone", "a..b", "x.git", "a b", "a/" + "b" * 97, "a" * 5000, "https://example.org/a/b", "starter:gone",
    "https://huggingface.co/a/b", "starter:", "starter:../x", "starter:seq_classification/..", "a\nb", "a\0b",
    "\x1b[31m", "é/x", "💥", "",
)  # fmt: skip

_GENERATION = (
    "{top_p: 1.5}", "{top_p: 0}", "{temperature: -1}", "{max_new_tokens: 0}", "{x: 1}", "{top_k: -1}",
    "{top_k: {a: 1}}", "{do_sample: 1}", "{repetition_penalty: 101}",
)  # fmt: skip

WRONG: dict[tuple[str, str], Sequence[str]] = {
    ("", "batchSize"): _COUNT,
    ("", "minWorkers"): _COUNT,
    ("", "maxBatchDelay"): (*_WHOLE, "2147483648"),
    ("", "startupTimeout"): _COUNT,
    ("", "jobQueueSize"): _WHOLE,
    ("", "deviceType"): (*_CHOICE, "tpu"),
    ("", "deviceIds"): ("'0'", "5", "{a: 1}", "[a]", "[-1]", "[[0]]", "[true]", "[]"),
    ("", "useVenv"): _TRUE,
    ("", "handler"): _PART,
    ("", "archive"): _PART,
    ("", "verify"): _PART,
    ("", "pt2"): (*_PART, "{compile: 5}", "{export: {}}", "{compile: {mode: fast}}", "{compile: {enable: 1}}"),
    ("", "torchrun"): (*_PART, "{nproc_per_node: 2}", "{nnodes: 0}", "{node-rank: -1}"),
    ("handler", "mode"): (*_CHOICE, "sequnce_classification", "[sequence_classification]"),
    ("handler", "model_name"): (*_TEXT, "3", "true", "1.5", *map(quoted, _MODELS)),
    ("handler", "revision"): (*_TEXT, "''", "'a b'", '"a\\nb"', "main"),
    ("handler", "embedding_name"): (*_TEXT, "!env HOME", "!!python/name:os.system x", "!!binary aGk=", "&a !x y"),
    ("handler", "save_mode"): (*_CHOICE, "torch_script"),
    ("handler", "hardware"): (*_CHOICE, "cuda", "inf2"),
    ("handler", "dtype"): (*_CHOICE, "fp16", "float64"),
    ("handler", "max_length"): (*_COUNT, "3", "1000001", "[]", "[64, 128]", "[2]", "[64, 64]", "[[64]]", "[64.5]"),
    ("handler", "num_labels"): (*_WHOLE, "100001"),
    ("handler", "top_k"): (*_COUNT, "100001"),
    ("handler", "stride"): (*_WHOLE, "512", "1000000"),
    ("handler", "captum_explanation"): _TRUE,
    ("handler", "do_lower_case"): _TRUE,
    ("handler", "labels"): ("[]", "{}", "a b", "5", "[a, a]", "[a, '']", "{0: a, 2: b}", "{x: a}", "[[a]]", "{1: a}"),
    ("handler", "generation"): (*_PART, *_GENERATION),
    ("", "hardware"): (*_PART, "neuronx", "gpu", "{target: inf1}", "{cores: 0}", "{compiler_args: [1]}"),
    ("hardware", "cores"): _COUNT,
    ("hardware", "compiler_args"): ("5", "{a: b}", "[[a]]", "[1]", "'a \"b'"),
    ("hardware", "auto_cast"): (*_CHOICE, "bf16"),
    ("hardware", "dynamic_batch"): _TRUE,
    ("archive", "name"): (*_TEXT, *map(quoted, _NAMES)),
    ("archive", "version"): (*_TEXT, *map(quoted, ("", "1/2", "../1", "a b", "v" * 65, "1,2", "1*", ".1", "é"))),
    ("archive", "format"): (*_CHOICE, "zip"),
    ("verify", "tolerance"): (*_FRACTION, "1.1"),
    ("verify", "samples"): ("[]", "5", "a text", "{}", "[5]", "['']", "[{}]", "[[a]]", "[{nothing: a}]", "[{text: 5}]"),
}  # fmt: skip

# Settings that are each right, and not together.
CONTRADICTIONS: Sequence[tuple[tuple[str, ...], dict[tuple[str, str], str]]] = (
    (tuple(MODES), {("", "minWorkers"): "3", ("", "maxWorkers"): "2"}),
    (tuple(MODES), {("", "deviceIds"): "[0]", ("handler", "hardware"): "cpu"}),
    (tuple(MODES), {("", "deviceType"): "gpu", ("handler", "hardware"): "cpu"}),
    (tuple(MODES), {("", "pt2"): "{compile: {mode: default, options: {a: 1}}}"}),
    (tuple(MODES), {("handler", "dtype"): "float16", ("handler", "hardware"): "cpu", ("", "deviceType"): "cpu"}),
    (tuple(MODES), {("handler", "save_mode"): "torchscript", ("handler", "model_parallel"): "true"}),
    (tuple(MODES), {("handler", "save_mode"): "torchscript", ("handler", "BetterTransformer"): "true"}),
    (tuple(MODES), {("handler", "save_mode"): "torchscript", ("", "pt2"): "{compile: {enable: true}}"}),
    (tuple(MODES), {("", "batchSize"): "8", ("handler", "hardware"): "neuronx", ("handler", "batch_size"): "4"}),
    (tuple(MODES), {("handler", "hardware"): "neuron", ("hardware", "target"): "inf2"}),
    (tuple(MODES), {("", "maxWorkers"): "65", ("handler", "hardware"): "neuronx"}),
    (("text_generation",), {("handler", "hardware"): "neuronx"}),
    (tuple(MODES), {("handler", "revision"): "main"}),
    (("seq_classification",), {("handler", "task"): "text_generation"}),
    (("seq_classification",), {("handler", "labels"): "[a, b]", ("handler", "num_labels"): "3"}),
    (("seq_classification",), {("handler", "labels"): "[a, b]", ("handler", "top_k"): "3"}),
    (("seq_classification",), {("verify", "samples"): "[{prompt: a}]"}),
    (("token_classification",), {("handler", "max_length"): "64", ("handler", "stride"): "64"}),
    (("question_answering",), {("handler", "max_length"): "16", ("handler", "max_answer_length"): "16"}),
    (("question_answering", "text_generation"), {("handler", "labels"): "[a, b]"}),
    (("text_generation", "token_classification"), {("handler", "top_k"): "1"}),
    (("text_generation",), {("handler", "max_length"): "64", ("handler", "generation"): "{max_new_tokens: 64}"}),
    (("text_generation",), {("handler", "aggregation_strategy"): "max"}),
)

# Keys that no section has, as they are written in a file.
STRANGE = (
    "zzz", "batchsize", "max_lenght", "archive.name", "handler.mode", "'handler '", "Handler", "HANDLER", "''", "' '",
    "0", "true", "~", "1.5", "ключ", "模式", "💥", "ｍｏｄｅ", '"mo\\u200bde"', '"mode\\u0301"', '"\\0"', '"a\\nb"',
    '"\\e[31m"', '"\\u2028"', '"\\uFEFFmode"', "a/b", "'*'", "'a,b'", ".hidden", "__class__", "model_config", "'{}'",
    "'<< '", "k" * 900,
)  # fmt: skip

Damage = Callable[[st.DrawFn, Rows], Rows]


def with_wrong(rows: Rows, section: str, key: str, value: str) -> Rows:
    """The rows with a wrong value at a key, which may be that of a whole section."""
    if not section and key in ("handler", "archive", "verify"):
        rows = tuple(row for row in rows if row.section != key)
    elif section and any(row.key == section and not row.section for row in rows):
        return rows  # the section itself is no section any more
    return put(rows, Row(section, key, value, bad=True))


def _wrong_value(draw: st.DrawFn, rows: Rows) -> Rows:
    section, key = draw(st.sampled_from(sorted(WRONG)))
    return with_wrong(rows, section, key, draw(st.sampled_from(WRONG[section, key])))


def _contradiction(draw: st.DrawFn, rows: Rows) -> Rows:
    task = _task(rows)
    known = [settings for tasks, settings in CONTRADICTIONS if task in tasks or tasks == tuple(MODES)]
    return with_all(rows, draw(st.sampled_from(known)))


def with_all(rows: Rows, settings: dict[tuple[str, str], str]) -> Rows:
    """The rows with settings that contradict each other, or the rest."""
    return put(rows, *(Row(section, key, value, bad=True) for (section, key), value in settings.items()))


def _strange_key(draw: st.DrawFn, rows: Rows) -> Rows:
    section = draw(st.sampled_from(["", *sorted({row.section for row in rows})]))
    value = draw(_of("1", "text", "[1]", "{a: 1}", "{mode: x}", "''", "true"))
    row = Row(section, draw(st.sampled_from(STRANGE)), value, bad=True)
    at = draw(st.integers(0, len(rows)))
    return (*rows[:at], row, *rows[at:])


def _misspelt_key(draw: st.DrawFn, rows: Rows) -> Rows:
    """A letter that no key has at two places, so that no key becomes another one."""
    at = draw(st.integers(0, len(rows) - 1))
    key = rows[at].key
    place = draw(st.integers(0, len(key)))
    typo = replace(rows[at], key=f"{key[:place]}xx{key[place:]}", bad=True)
    return (*rows[:at], typo, *rows[at + 1 :])


def _twice(draw: st.DrawFn, rows: Rows) -> Rows:
    again = draw(st.sampled_from(rows))
    key = draw(_of(again.key, f"'{again.key}'", f'"{again.key}"'))
    return (*rows, replace(again, key=key, bad=True))


OF_ROWS: dict[str, Damage] = {
    "a wrong value": _wrong_value,
    "a contradiction": _contradiction,
    "a key that there is not": _strange_key,
    "a misspelt key": _misspelt_key,
    "a key given twice": _twice,
}
