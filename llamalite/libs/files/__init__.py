"""What library files say, and whether this machine's loader takes them.

Reading order: `bounded` (reading without trust), `elf`, `pe`, `macho` and `binaries` (the formats),
`machine` (what the loader here offers), `remedies` (what to do about what is missing), `folder` and
`inspect` (which files are libllama, and whether they can be loaded), `processor`. Needs the
standard library alone; opens no library.
"""
