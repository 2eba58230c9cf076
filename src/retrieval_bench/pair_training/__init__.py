"""Two towers that meet in one space, one of pictures' features and one of texts: tokens, towers, losses, loop and file.

It sees vectors, texts and numbers; which extractor describes the pictures of which dataset belongs in `training`.
"""
