"""DICOM files and series."""
