"""A config through its stages, to an archive in the output folder. It never imports the command line."""
