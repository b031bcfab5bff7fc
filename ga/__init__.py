"""How genomes improve: ask and tell on the unit cube; knows nothing of markets."""
