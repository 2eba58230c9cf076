"""An index that lasts: pictures described once by several methods, in a folder that is searched, added to and undone.

The search engine itself belongs in `search`, and what answers over a network in `serving`.
"""
