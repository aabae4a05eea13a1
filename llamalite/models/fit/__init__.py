"""How much memory a model takes, what there is, and what fits."""
