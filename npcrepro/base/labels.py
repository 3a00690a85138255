"""The value that masks may have beside 0 and 1."""

# Fills the channel of a structure that nobody drew in a case. The structure may be there all the same; 0 would say that
# it is not.
NOT_CONTOURED = 255
