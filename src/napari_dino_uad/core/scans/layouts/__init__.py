"""Folder layouts and tables in which data sets list their scans, masks and healthy images."""
