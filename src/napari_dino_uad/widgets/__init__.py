"""The dock widgets: they connect napari's window to the core."""
