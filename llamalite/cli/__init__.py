"""The command line: one module per command, whose docstring is its usage.

Knows options, exit codes and terminals, not models or native code. Only this package imports
docopt. May import everything below it.
"""
