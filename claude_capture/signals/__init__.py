"""One module per reasoning signal; `claude_capture.reasoning_extractor` puts them together."""
