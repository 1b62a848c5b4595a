"""What archives and original models answer, and whether they agree. It imports no part of the builder."""
