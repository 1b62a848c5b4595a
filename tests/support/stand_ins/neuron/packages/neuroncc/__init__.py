"""A stand-in for AWS's neuron-cc, for tests: that it can be imported is all that the one for torch_neuron needs."""
