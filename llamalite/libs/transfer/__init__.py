"""From an address to unpacked files, trusting nothing on the way.

Reading order: `reach` (does the host answer), `web`, `download` with `source` (asking, `answers`),
`expected`, `partial` (resuming), `patience`, `space` and `progress`, `unpack`. Knows nothing about
libllama's releases.
"""
