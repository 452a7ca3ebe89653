"""A local web page to review results, correct tags, and accept or repaint masks."""
