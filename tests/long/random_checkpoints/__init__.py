"""Random checkpoints, built and asked texts that `verify` did not see.

`recipes` draws a checkpoint: family, task, tokenizer, flags, head, precision, files. `making` writes it, `oracle` is
what transformers itself answers, and `trial` builds it and compares. `test_random_checkpoints.py` tries 30 of them;
`python -m tests.long.random_checkpoints --minutes 60` tries as many as it can, and lists what happened.
"""
