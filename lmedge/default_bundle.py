"""The bundle that commands take when none is named; apart from `bundle`, so that `--help` can say it without numpy."""

DEFAULT = "zoo:ibug68_fast"
