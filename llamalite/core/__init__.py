"""Owned native objects: what llama.h offers, as Python objects that free what they hold.

Owns Model, Vocab, Context, Batch, memory, state, SamplerChain, LoraAdapter and quantizing. Checks
in Python whatever libllama would throw or assert on. Knows nothing of prompts, templates, names of
models or scheduling. Imports numpy, `ffi` and what lies below it.
"""
