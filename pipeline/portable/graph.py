"""Names that compiled graphs share between this package and the workers."""

FACTS = "graph.json"
"""The file that describes an archive's graphs."""
FORMAT = 1
"""The version of that file, and of how its graphs are called."""

NO_CHIP = "no NeuronCore"
