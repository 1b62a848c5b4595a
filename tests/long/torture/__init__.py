"""The store and the model store under kill -9, crowds, full disks, damage and wrong clocks.

`test_torture.py` does all of it in a small form; `python -m tests.long.torture` (`make torture`) in full, with figures.
The command is a black box here, run as users run it; `caches` alone knows where its cache keeps what.
"""
