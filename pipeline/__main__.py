"""`python -m pipeline` is `mar`."""

from .cli import main

main()
