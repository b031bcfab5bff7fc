"""Which weather it is: causal detectors and the path they draw."""
