"""The ctypes mirror of llama.h and ggml-backend.h: names and layouts, no policy.

Owns struct layouts for every known build, the fingerprint that picks one, prototypes, loading and
the native log. Knows nothing of models, prompts or files on the network. Imports the standard
library, `llamalite.errors`, `llamalite.config` and the inspecting part of `llamalite.libs`.
"""
