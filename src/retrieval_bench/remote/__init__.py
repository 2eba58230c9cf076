"""Files that lie elsewhere: in archives, on web servers, in stores of objects; read by ranges, and kept in the cache.

What the files mean belongs in `datasets`; how a picture is decoded in `images`.
"""
