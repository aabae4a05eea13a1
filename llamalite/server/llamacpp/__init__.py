"""llama-server's own API, so that its clients work unchanged."""
