"""Cache, timing, devices, threads, checkpoints and atomic files: what the other rooms stand on.

Nothing here knows of images, methods or records.
"""
