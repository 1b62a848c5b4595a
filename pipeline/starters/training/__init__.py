"""Trains the starter models from nothing, on text that these modules generate: a module for each task.

python -m mar_pipeline.starters.training TASK [--out DIR]
"""
