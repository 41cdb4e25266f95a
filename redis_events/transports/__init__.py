"""The ways to carry events: one module each, on the contract of ``base``."""
