"""`python -m lmedge` is the command line, as `lmedge` is."""

from lmedge.cli import main

main()
