"""Random damage to the files and messages that strangers send: every reader has to give its documented error, or a
value, in little time and memory.

A file for each reader: `test_NAME.py` has its seeds, how they are changed, and what it may raise. `corpus/NAME/` has
inputs that were once faults. `python -m tests.long.fuzz NAME --minutes 60` tries one reader for longer.
"""
