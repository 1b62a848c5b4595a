"""What the stand-ins for torch_neuron and torch_neuronx share: a pretended machine, and graphs that run on its CPU but
keep a chip's rules. It is nothing of AWS's, and runs on Python 3.8 and torch 1.13, or newer."""
