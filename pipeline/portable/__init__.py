"""Code that also runs in other environments, by its path and on Python 3.8: it imports nothing of ours."""
