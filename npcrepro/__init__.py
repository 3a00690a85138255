"""Five papers on segmenting nasopharyngeal carcinoma, built again and measured beside what they print.

Importing the package is cheap: torch, MONAI, SimpleITK and matplotlib are imported by the modules that use them.
"""

import os

__version__ = "0.1.0"

# Threads of torch that wait for each other keep their core busy, by default so long that beside other programs a
# training takes many times as long: they wait for one that is not running. OpenMP of GNU reads this when torch is
# imported, so import torch after npcrepro. Processes that are started from here inherit it. Of 2,000, 5,000 and 50,000
# turns, 5,000 is the most that costs little beside other programs and the least that costs nothing on an idle machine.
if "OMP_WAIT_POLICY" not in os.environ:  # which says the same in words, and would be overridden
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
