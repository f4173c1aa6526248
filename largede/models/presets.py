"""Shapes of T5 encoders by name, so that a model of every size can be built without a download.

`gtr-*` are the T5 1.0 encoders of Ni et al. 2021 (ReLU feed-forward, vocabulary 32,128). `mini` is small
enough to be trained from scratch on a few CPU cores; `quickstart` is the same with the vocabulary of the embedded
default; `smoke` is the smallest that still exercises every kind of parameter.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class T5Shape:
    """What fixes the number of parameters of a T5 encoder."""

    layers: int
    d_model: int
    heads: int
    d_kv: int
    d_ff: int
    vocabulary: int = 32128
    feed_forward: str = "relu"


PRESETS = {
    "gtr-base": T5Shape(layers=12, d_model=768, heads=12, d_kv=64, d_ff=3072),
    "gtr-large": T5Shape(layers=24, d_model=1024, heads=16, d_kv=64, d_ff=4096),
    "gtr-xl": T5Shape(layers=24, d_model=1024, heads=32, d_kv=128, d_ff=16384),
    "gtr-xxl": T5Shape(layers=24, d_model=1024, heads=128, d_kv=128, d_ff=65536),
    "mini": T5Shape(layers=1, d_model=256, heads=4, d_kv=64, d_ff=512),
    "quickstart": T5Shape(layers=1, d_model=256, heads=4, d_kv=64, d_ff=512, vocabulary=8064),
    "smoke": T5Shape(layers=2, d_model=128, heads=2, d_kv=64, d_ff=192, vocabulary=512),
}

KNOWN_BACKBONES = {
    "google-t5/t5-base": "gtr-base",
    "google-t5/t5-large": "gtr-large",
    "google-t5/t5-3b": "gtr-xl",
    "google-t5/t5-11b": "gtr-xxl",
    "t5-base": "gtr-base",
    "t5-large": "gtr-large",
    "t5-3b": "gtr-xl",
    "t5-11b": "gtr-xxl",
}
"""Published T5 1.0 checkpoints by hub name, and the preset whose shape each has."""
