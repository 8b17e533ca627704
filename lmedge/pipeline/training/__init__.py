"""Faces to a checkpoint: the loop, its objective and data, and what it keeps."""
