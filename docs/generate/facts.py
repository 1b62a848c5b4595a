"""The smaller tables: exit codes, environment variables, limits of requests, advisories, tolerances."""

from __future__ import annotations

import inspect
import io
import tokenize
from typing import Any

from . import markdown, project


def exit_codes() -> str:
    """Every code that `mar` ends with."""
    errors = project.errors
    named = {errors.OK: "Done.", errors.UNEXPECTED: "Unexpected: a bug in mar-pipeline or in a library, with its "
             "traceback. Please report it.", errors.DIFFERENT: "`mar diff`: the two archives differ.",
             errors.INTERRUPTED: "Interrupted by Ctrl-C or SIGTERM. Finished stages are cached."}  # fmt: skip
    for error in errors.MarError.__subclasses__():
        named[error.exit_code] = inspect.cleandoc(error.__doc__ or "")
    return markdown.table(["code", "meaning"], [[str(code), named[code]] for code in sorted(named)])


def variables() -> str:
    """What a model's process gets of the builder's environment, by the groups that the source has them in."""
    groups = _groups()
    if [name for names in groups.values() for name in names] != list(project.environment.NAMES):
        raise ValueError("the groups of NAMES in the source are not NAMES")
    rows = [[title.rstrip("."), ", ".join(f"`{name}`" for name in names)] for title, names in groups.items()]
    prefixes = ", ".join(f"`{prefix}*`" for prefix in project.environment.PREFIXES)
    return markdown.table(["group", "variables"], [*rows, ["Everything that begins with", prefixes]])


def credentials() -> str:
    """The variables that hold each source's secrets."""
    kinds = {
        name: names
        for kind, row in project.KINDS.items()
        for name, names in (
            [(service.name, service.credentials) for service in project.SERVICES.values()]
            if kind == "url"
            else [(project.ADDRESSES[kind].words.partition(",")[0], row.credentials)]
        )
        if names
    }
    rows = [[name, ", ".join(f"`{one}`" for one in names)] for name, names in kinds.items()]
    return markdown.table(["source", "variables"], rows)


def _groups() -> dict[str, list[str]]:
    """NAMES as it is written: a comment, and the names below it."""
    source = inspect.getsource(project.environment)
    source = source[source.index("\nNAMES = (") :]
    groups: dict[str, list[str]] = {}
    title = "Variables"
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# fmt"):
            title = token.string.removeprefix("# ")
        elif token.type == tokenize.STRING:
            groups.setdefault(title, []).append(token.string.strip("\"'"))
        elif token.string == ")":
            break
    return groups


def limits() -> str:
    """The limits that hold on every machine."""
    requests, stop = project.requests, project.requests.STOP
    stops = next(one for one in requests.GENERATION["stop"]["anyOf"] if one["type"] == "array")["maxItems"]
    answering = requests.INPUTS["question_answering"]["properties"]
    generated = requests.GENERATION["max_new_tokens"]["maximum"]
    rows = [
        ["inputs in a request", requests.MAX_INPUTS],
        ["characters in a text", requests.MAX_CHARACTERS],
        ["characters in a request with a list of inputs", requests.MAX_CHARACTERS_TOGETHER],
        ["tokens in all windows of a request (token classification, question answering)", project.TOKENS],
        ["tokens times steps of an explanation", project.WORK],
        ["steps of an explanation", requests.EXPLAINED["seq_classification"]["properties"]["steps"]["maximum"]],
        ["`top_k` of question answering", answering["top_k"]["maximum"]],
        ["`max_answer_length`, in tokens", answering["max_answer_length"]["maximum"]],
        ["`max_new_tokens` of text generation", generated],
        ["texts in `stop`", stops],
        ["characters of a text in `stop`", stop["maxLength"]],
        ["messages in a chat", requests.INPUTS["text_generation"]["properties"]["messages"]["maxItems"]],
    ]
    return markdown.table(["what", "at most"], [[str(name), f"{number:,}"] for name, number in rows])


def advisories() -> str:
    """Known advisories of the libraries."""
    return project.advisories.table()


def tolerances() -> str:
    """By how much scores may differ, as a model is served."""
    of, chips = project.tolerance, project.CHIPS
    machines = {name: chips[name].machines if name in chips else name.upper() for name in of.FLOAT32}
    rows: list[list[Any]] = [[f"float32 on {machines[name]}", most] for name, most in of.FLOAT32.items()]
    rows += [[f"with `{name}`" if "." in name else name, most] for name, most in of.REDUCED.items()]
    return markdown.table(["served as", "tolerance of scores"], [[str(name), f"{value:g}"] for name, value in rows])
