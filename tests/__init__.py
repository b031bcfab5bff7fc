"""Why we believe it. A regular package, so that no installed package named tests hides `tests.reference`."""
