"""Pictures of strangers are decoded in child processes, which may crash or run out of memory and take nobody along.

How a picture is decoded does not belong here (`images/`).
"""
