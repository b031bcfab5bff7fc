"""What can be set: YAML files, their loader, and the registry of plugins."""
