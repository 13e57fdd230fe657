"""The real Claude Code for tests and benchmarks; the demo of the closed loop runs it the same way."""

from trainer.demo.live_claude_code import VERSION, ClaudeCode, Unavailable, find_or_install

__all__ = ["VERSION", "ClaudeCode", "Unavailable", "find_or_install"]
