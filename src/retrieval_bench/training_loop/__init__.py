"""One training loop and its parts: frames, augmentation, losses, schedule, heads.

It sees modules and tensors; which network is trained on which dataset belongs in `training`.
"""
