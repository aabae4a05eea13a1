"""What a context's cache can hold keys and values as.

PERF: apart from the settings, whose classes take longer to make than a header to read.
"""

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Names of ggml's types, in lower case."""
