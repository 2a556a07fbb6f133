"""Architecture families, one file each."""
