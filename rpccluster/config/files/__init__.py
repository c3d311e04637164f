"""The files of the configuration: from bytes to settings, and to one fault for each mistake. Any process.

The descriptions of the sections convert and check the values.
"""
