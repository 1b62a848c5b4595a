"""What is measured: `serving` is `make bench`, `command_times` how long the commands take that do no work."""
