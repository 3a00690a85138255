"""Colours that reference and methods keep through the whole book, told apart by colour-blind readers."""

REFERENCE = "#E69F00"
YELLOW = "#F0E442"
METHODS = ("#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", YELLOW)
# For tables longer than Okabe and Ito's list: olive, violet, teal, brown, lavender, rose and lime.
MORE = ("#999933", "#AA4499", "#44AA99", "#994F00", "#B3B3FF", "#FFAABB", "#A6D854")
NNUNET = "#882255"  # wine, for the U-Net of nnU-Net, which stands beside the methods of several papers
GREY = "#999999"
