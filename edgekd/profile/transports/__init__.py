"""The ways to reach a device, one per file."""
