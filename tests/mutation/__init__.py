"""How many small faults the tests notice.

python -m tests.mutation                  changes the code in each way of sample.json, and runs the tests of its package
python -m tests.mutation --draw COMMIT    draws another sample, of lines that COMMIT has too (pip install cosmic-ray)

A mutant is a line and what cosmic-ray's operators make of it. A sample is of lines that stand once in their module, so
it fits any commit that has them, wherever the module lies.
"""
