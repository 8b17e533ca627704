"""From labelled faces to a checkpoint, and the order of all stages up to the bundle."""
