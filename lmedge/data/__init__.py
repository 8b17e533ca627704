"""Labelled faces: samples, readers of the published formats, rendered faces, augmentation, statistics."""
