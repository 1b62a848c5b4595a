"""Files of this machine: trees, atomic writes, YAML. Of this package, it imports only the errors."""
