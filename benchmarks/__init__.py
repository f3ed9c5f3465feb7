"""Measurements that figures in the documents come from; each is one command and prints what it found."""
