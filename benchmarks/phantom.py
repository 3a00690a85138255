"""Speed and memory of the phantom: ``python benchmarks/phantom.py``.

Prints patients a second on one core (24 x 128 x 128, three series of MRI) and the peak memory of a process that makes
one patient of 100 x 512 x 512: a CT with its masks, and MRI in three series. Best with OMP_NUM_THREADS=1.
"""

import subprocess
import sys
import time

from npcrepro.cohorts.phantom import make_patient

PATIENTS = 10
LARGE = (100, 512, 512)


def patients_per_second() -> float:
    """Patients for each second of processor time, after one that warms up."""
    make_patient(0, matrix=(24, 128, 128))
    start = time.process_time()
    for number in range(PATIENTS):
        make_patient(number, matrix=(24, 128, 128))
    return PATIENTS / (time.process_time() - start)


def peak_memory_mb(kind: str) -> float:
    """Largest resident memory of a process that makes one large patient, and nothing else."""
    code = f"""
import resource
from npcrepro.cohorts.phantom import make_patient
made = make_patient(0, kind={kind!r}, matrix={LARGE}, spacing_mm=(2.0, 0.5, 0.5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout) / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


if __name__ == "__main__":
    print(f"24 x 128 x 128, three series: {patients_per_second():.2f} patients per second and core")
    for kind in ("ct", "mri"):
        start = time.perf_counter()
        peak = peak_memory_mb(kind)
        print(f"{' x '.join(map(str, LARGE))}, {kind}: peak {peak:.0f} MB, {time.perf_counter() - start:.0f} s")
