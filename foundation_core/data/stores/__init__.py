"""Where files are: folders of this machine, and stores."""
