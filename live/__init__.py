"""Doing it: feed, paper broker, safeguards, journal."""
