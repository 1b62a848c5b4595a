"""What says how a compiled graph is called, and where it runs."""

FACTS = "graph.json"
"""The file that says of an archive's graphs how to call them."""
FORMAT = 1
"""Of it and the graphs."""

NO_CHIP = "no NeuronCore"
