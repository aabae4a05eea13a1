"""Models on this computer: what is there, what it is called, and what is remembered of it."""
