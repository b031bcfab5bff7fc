"""Where work runs: workers, compiled kernels, random streams."""
