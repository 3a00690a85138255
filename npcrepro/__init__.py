"""Five papers on segmenting nasopharyngeal carcinoma, built again and measured beside what they print.

Importing the package is cheap: torch, MONAI, SimpleITK and matplotlib are imported by the modules that use them.
"""

__version__ = "0.1.0"
