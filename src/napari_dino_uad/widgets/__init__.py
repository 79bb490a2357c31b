"""The dock widgets: they translate between the window and the core."""
