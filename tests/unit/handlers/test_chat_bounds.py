"""A chat template that never ends, or that asks for gigabytes, is an answer with an error, and soon."""

from __future__ import annotations

import resource
import signal
import time
from threading import Thread
from typing import Any

import pytest

from mar_pipeline.handlers.protocol.problem import Problem
from mar_pipeline.handlers.text import bounds
from mar_pipeline.handlers.text.chat import Chat

TALK = [{"role": "user", "content": "Where does the baker work?"}]

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "filters in a loop": "{% for a in range(99999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "a power": "{{ 10 ** (10 ** 8) }}",
    "products": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
}
LARGE = {
    "a width": "{{ '%2000000000d' % 1 }}",
    "a width in a filter": "{{ '%2000000000d' | format(1) }}",
    "a width of format": "{{ '{:2000000000}'.format('a') }}",
    "center": "{{ 'a'.center(5000000000) }}",
    "center as a filter": "{{ 'a' | center(5000000000) }}",
    "a product": "{{ 'a' * 10**11 }}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "sums": "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "lists": "{% set n = namespace(x=[]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "joining": "{{ range(99999) | join('a' * 100000) }}",
    "replacing": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "indenting": "{{ messages | tojson(indent=2000000000) }}",
    "many characters": "{% for a in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 1)


@pytest.mark.parametrize("template", [*ENDLESS.values(), *LARGE.values()], ids=[*ENDLESS, *LARGE])
def test_a_template_takes_little_time_and_memory(template: str) -> None:
    before, limits = time.process_time(), resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(Problem, match="the chat template") as caught:
        Chat(template, {}).prompt(TALK)
    assert caught.value.status == 400
    assert time.process_time() - before < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 * 2**20  # kB, with torch and the other tests
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    assert Chat("{{ messages[0].content }}", {}).prompt(TALK) == TALK[0]["content"]


def test_ordinary_arithmetic_and_formats_work() -> None:
    template = "{{ 3 * 4 }} {{ 'ab' * 2 }} {{ 2 ** 10 }} {{ '%5.1f%%' % 2.25 }} {{ 7 % 4 }} {{ 1.5 * 2 }} {{ [1] * 2 }}"
    assert Chat(template, {}).prompt(TALK) == "12 abab 1024   2.2% 3 3.0 [1, 1]"


def test_another_thread_renders_too() -> None:
    got: list[Any] = []
    thread = Thread(target=lambda: got.append(Chat("{{ messages[0].content }}", {}).prompt(TALK)))
    thread.start()
    thread.join()
    assert got == [TALK[0]["content"]]
