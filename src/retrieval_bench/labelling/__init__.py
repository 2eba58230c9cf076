"""Labels for images that have none, half by machine: proposals, how sure they are, and decisions that are kept.

What is wrong with labels because two images are equal belongs in `data_audit`; the page on which a person decides in
`serving`; networks that learn from labels in `training`.
"""
