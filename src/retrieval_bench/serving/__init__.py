"""A search service over indexes, as programs and people meet it: HTTP and pages.

What is searched and how a search is answered does not belong here (`answering/`), nor what a request may ask
(`requests/`), nor what its client is told (`client/`), nor how strangers' pictures are decoded (`decoding/`).
"""
