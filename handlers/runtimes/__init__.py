"""Runtimes: what runs the model. Each has `load(model_dir, settings, compiled, device, pad)`, whose result offers
`run(batch) -> outputs` for encoders and `generate(rows, pad)` for decoders."""
