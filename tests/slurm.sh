#!/usr/bin/env bash
# A SLURM of one node on this machine, and a sweep of tiny runs through it; a worker is killed on the way, and the sweep
# started again. `make test-slurm` calls this.
#
# For a machine of your own, such as a container: it needs root, installs Debian packages, and puts a slurm.conf into
# /etc/slurm for the time of the test. It leaves a machine alone that has a SLURM already.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:-.venv/bin}")

fail() { echo "test-slurm: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "it starts the daemons of SLURM, so it needs root; a container will do."
[ ! -e /etc/slurm/slurm.conf ] || fail "this machine has a SLURM (/etc/slurm/slurm.conf); the test keeps away from it."
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null 2>&1 \
    || fail "slurm-wlm and munge cannot be installed (apt-get install slurm-wlm munge)."
fi

work=$(mktemp -d)
mkdir "$work/state" "$work/spool"
runs=$work/runs
started=()
finish() {
  for name in "${started[@]}"; do [ ! -e "$work/$name.pid" ] || kill "$(cat "$work/$name.pid")" 2>/dev/null || true; done
  rm -f /etc/slurm/slurm.conf
  sleep 1
  rm -rf "$work"
}
trap finish EXIT

mkdir -p /run/munge /etc/slurm
chown munge: /run/munge
if [ ! -S /run/munge/munge.socket.2 ]; then
  touch "$work/munged.pid"
  chown munge: "$work" "$work/munged.pid"
  runuser -u munge -- /usr/sbin/munged --pid-file="$work/munged.pid"
  started+=(munged)
fi
# The file has to lie there: with SLURM_CONF alone, sbatch works but an srun inside a job does not.
cat > /etc/slurm/slurm.conf <<C
ClusterName=npcrepro
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$work/jobs.log
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=$(hostname) Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP
C
started+=(slurmctld slurmd)
slurmctld
slurmd
for _ in $(seq 60); do [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break; sleep 1; done
[ "$(sinfo -h -o %t)" = idle ] || { tail -n 20 "$work"/slurm*.log >&2; fail "the node does not become idle."; }

settings=(papers=li2018 profile=smoke seeds=0,1 device=cpu "runs=$runs")
sweep() {
  # Without an accounting daemon sacct knows nothing, and Snakemake would wait for ever; a real cluster needs neither flag.
  PATH=$BIN:$PATH timeout -k 5 1800 "$BIN/snakemake" records --profile profiles/slurm --retries 0 --latency-wait 15 \
    --default-resources slurm_partition=main mem_mb=1000 runtime=30 --set-resources record:mem_mb=1000 \
    --slurm-status-command squeue --slurm-init-seconds-before-status-checks 3 --config "${settings[@]}" "$@"
}

echo "test-slurm: a first start, of which one run is killed"
sweep > "$work/first.log" 2>&1 &
first=$!
victim=
while [ -z "$victim" ] && kill -0 $first 2>/dev/null; do
  victim=$(squeue -h -t R -o '%A %k' | awk '/record/ {print $1; exit}')
  sleep 0.2
done
[ -n "$victim" ] || { cat "$work/first.log" >&2; fail "no run was ever at work."; }
scancel --signal=KILL --full "$victim"
if wait $first; then fail "the first start ended well although job $victim was killed."; fi
"$BIN/npcrepro" status li2018 --profile smoke --seeds 0 --seeds 1 --runs "$runs"
made=$(find "$runs/li2018" -name provenance.json | wc -l)
[ "$made" = 3 ] || { cat "$work/first.log" >&2; fail "$made runs were finished, not the 3 that were left alone."; }

echo "test-slurm: the second start"
sweep > "$work/second.log" 2>&1 || { cat "$work/second.log" >&2; fail "the second start failed."; }
[ "$(grep -c '^rule record:' "$work/second.log")" = 1 ] || fail "the second start made more than the run that was missing."
"$BIN/npcrepro" run li2018 --profile smoke --seeds 0 --seeds 1 --device cpu --runs "$runs" | tee "$work/read.log"
grep -q '4 runs, 0 trained now, 4 read back' "$work/read.log" || fail "npcrepro run did not find the four runs."
echo "test-slurm: passed; $(wc -l < "$work/jobs.log") jobs went through SLURM"
