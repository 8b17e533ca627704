"""From an fp32 graph and training faces to the quantised graphs."""
