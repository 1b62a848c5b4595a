"""Which families of models build and verify, for which tasks and in which save modes: docs/families.md.

`matrix` builds each of them through the whole line, `forks` makes that quick, `table` is the page. What is in it is
what was built: `test_families.py` holds it against the running line of transformers, `python -m tests.families
--write` writes that line's part, and `make test-matrix` does either on both.
"""
