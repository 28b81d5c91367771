"""Outside files to scans and back."""
