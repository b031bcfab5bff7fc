"""What we tried: runs, the trial ledger, the statistics of luck."""
