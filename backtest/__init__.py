"""What it would have paid: one account step, costs, limits, metrics."""
