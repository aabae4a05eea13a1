"""What models are called: references, quantizations, repositories, the catalog. Pure."""
