"""Reports that a person likes to read: pages, figures, and the statistics behind them."""
