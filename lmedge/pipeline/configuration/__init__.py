"""Everything that a run can be told: options, TOML and command line, and their checks."""
