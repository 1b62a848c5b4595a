"""Which families of models build and verify, for which tasks and in which save modes: docs/reference/families.md.

`matrix` builds each of them through the whole line, and `table` is the page. `test_families.py` compares the page with
what the installed transformers builds, `python -m tests.long.families --write` writes that line's part, and `make
test-matrix` does either on both lines.
"""
