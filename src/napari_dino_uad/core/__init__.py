"""The core: everything but the viewer. Never imports napari or Qt."""
