"""What a run shows people: report, charts, findings, and how a build ends."""
