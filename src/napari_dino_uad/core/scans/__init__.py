"""A file or folder becomes a `Volume`, and back."""
