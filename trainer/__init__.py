"""Traces in, a model in service out. One folder per stage; `pipeline.py` knows their order."""
