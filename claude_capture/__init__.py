"""Records how a coding agent works inside Claude Code: sessions in, traces out."""

__version__ = "0.1.0"
