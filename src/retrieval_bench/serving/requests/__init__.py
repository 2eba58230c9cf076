"""What comes in: who may ask what, how much is read of it, and what is said where it is not served.

What a request is answered with does not belong here.
"""
