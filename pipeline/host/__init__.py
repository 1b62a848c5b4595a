"""This machine: its environment, processes, Java, compilers. It imports no part of a build."""
