"""A model's tensors: streamed from its files one at a time, checked complete before the first is read."""

from engine.weights.load import CPU, LoadFormat, open_weights
from engine.weights.source import Shape
from engine.weights.weights import Layout, Progress, Weights

__all__ = ["CPU", "Layout", "LoadFormat", "Progress", "Shape", "Weights", "open_weights"]
