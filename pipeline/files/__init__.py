"""Files of this machine: trees, atomic writes, YAML. It imports nothing of ours but errors."""
