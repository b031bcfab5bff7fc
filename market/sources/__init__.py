"""Where bars come from: files, exchanges, the synthetic market."""
