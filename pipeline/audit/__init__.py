"""Examines archives: `check` finds what is wrong with one, `diff` what differs between two. It does not import the
builder."""
