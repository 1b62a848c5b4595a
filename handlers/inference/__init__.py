"""How a model is run: batches, generation, explanations, and the time that a request has."""
