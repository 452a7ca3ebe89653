"""A local web page to look at what was found, correct tags, and accept or repaint masks."""
