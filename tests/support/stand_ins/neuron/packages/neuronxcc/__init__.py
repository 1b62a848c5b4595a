"""A stand-in for AWS's neuronx-cc, for tests: that it can be imported is all that the one for torch_neuronx needs."""
