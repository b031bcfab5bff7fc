"""What describes a bar: one module per subject, one pipeline."""
