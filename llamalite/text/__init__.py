"""Text in and out of a model, pure Python: chat templates, incremental UTF-8, stop strings.

Knows no tokens, models or native library. Imports the standard library, `llamalite.errors` and
`llamalite.config`; only `chat_template` and `sandbox` import jinja2, so import those late.
"""
