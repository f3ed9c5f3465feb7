"""What people see of a data set: its card, its documents, its packed rows, whether it is whole.

Everything is read from the folder of a finished ingestion.
"""
