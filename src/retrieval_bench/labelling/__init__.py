"""Labels for images that have none, half by machine: proposals with a confidence, what to look at first, decisions kept.

What is wrong with labels because two images are equal belongs in `data_audit`; the page on which a person decides in
`serving`; networks that learn from labels in `training`.
"""
