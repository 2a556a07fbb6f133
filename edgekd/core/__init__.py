"""Values, errors, registry and files that every other layer stands on; no ML framework."""
