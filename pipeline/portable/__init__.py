"""Code that also runs in other environments, on Python 3.8 (`__main__`). It imports nothing of ours but itself."""
