"""Traces → training samples. `read_dataset` is what later stages need; building is in behavioral_cloning_builder."""

from trainer.dataset.samples_file import read_dataset

__all__ = ["read_dataset"]
