"""What the spectrum study's columns and comparisons are called by; nothing else is loaded with it."""

EPSILONS = (0.4, 0.5, 0.6)
EPSILON = 0.5  # of the intruders that tests are about; the others are in the table
TOP = 10  # singular vectors of W + delta_w that are looked at for intruders
FEW = 8  # directions by which an update is compared with another, or all where there are fewer
SIDES = ("right", "left")
PAIR = ("q", "v")  # the weight types whose ranks the paper compares
