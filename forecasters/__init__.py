"""Who predicts the hours: forecasters behind four methods."""
