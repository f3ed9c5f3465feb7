"""Arrow files and their manifest."""
