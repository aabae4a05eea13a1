"""Turns requests into tokens.

Owns the generation loop; the scheduler, the prefix cache and the child process of a later form
belong here. Knows nothing of chat messages, HTTP or file names. Imports `core`, `constraint`,
`text` and what lies below them.
"""
