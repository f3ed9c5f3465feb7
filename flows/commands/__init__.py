"""The commands of `foundation`: in each module `configure(parser, name)` says what it takes, `run(arguments)` does it.

A module is imported when its command was chosen; what is heavy it imports when it needs it.
"""
