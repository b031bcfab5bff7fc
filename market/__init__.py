"""What happened: bars, features, splits, and the laws they obey."""
