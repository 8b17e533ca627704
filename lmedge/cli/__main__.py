"""`python -m lmedge.cli`."""

from lmedge.cli import main

main()
