"""What the benchmarks run on."""

from support.real_models import smollm2, stories

__all__ = ["smollm2", "stories"]
