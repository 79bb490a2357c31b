"""Where a backbone runs, and in which precision."""
