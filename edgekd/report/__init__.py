"""What a run found, for people (HTML, table) and for programs (JSON)."""
