"""The parts of `lmedge.runtimes.bench`: what is timed, how, what else is measured beside it, and how two runs compare."""
