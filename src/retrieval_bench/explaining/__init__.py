"""What made two images near to a method: regions, keypoints, words, bits; and the one picture that shows it.

Tables and plots of a whole record belong in `report`.
"""
