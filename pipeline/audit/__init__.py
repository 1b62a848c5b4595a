"""Archives examined: what is wrong with one, and what differs between two. It imports no part of the builder."""
