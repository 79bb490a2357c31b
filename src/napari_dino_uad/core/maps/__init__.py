"""Patch scores become a calibrated map and findings."""
