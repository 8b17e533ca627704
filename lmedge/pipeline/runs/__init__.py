"""A run folder: its stages, lock and files."""
