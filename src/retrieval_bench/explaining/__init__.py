"""What made two images near to a method: places, keypoints, bits; and the one picture that shows it."""
