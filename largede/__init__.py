"""largede: train, evaluate and ship large T5 dual encoders."""

__version__ = "0.1.0"
