"""The cache: results of stages, by digest. It knows nothing of what they are results of."""
