"""`sbatch`, `squeue` and `scancel` as scripts, for want of a cluster; the words are Slurm's.

`python commands.py STATE NAME ARGUMENTS...`. In the folder STATE are the jobs, the calls, and what
makes the answers odd: `refuse` (every job, with these words), `max_array` (an array's size),
`max_jobs` (tasks at a time), `hold` (nothing is begun, for this reason), `squeue_down`,
`scancel_down`. It imports the standard library alone, so that it starts in 20 ms.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys

COMMANDS = ("sbatch", "squeue", "scancel")
_POLICY = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job "
    "violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


def read(state, name):
    try:
        with open(f"{state}/{name}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def jobs_in(state):
    """Return all jobs, ended ones too, oldest first."""
    names = [name for name in os.listdir(state) if re.fullmatch(r"job-\d+", name)]
    jobs = []
    for name in sorted(names, key=lambda name: int(name[4:])):
        jobs.append(json.loads(read(state, name)))
    return jobs


def _born(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def live_tasks(job):
    """Return the tasks of a job that have not ended: index -> (process or None, its birth)."""
    tasks = {int(index): tuple(told) for index, told in job["tasks"].items()}
    return {
        index: (pid, born)
        for index, (pid, born) in tasks.items()
        if (pid is None and not job["cancelled"])
        or (pid is not None and born is not None and _born(pid) == born)
    }


def _write(state, job):
    with open(f"{state}/.job", "w") as file:
        json.dump(job, file)
    os.replace(f"{state}/.job", f"{state}/job-{job['id']}")


def sbatch(state, arguments):
    if "--wrap" in arguments:  # a command in place of a script
        at = arguments.index("--wrap")
        wrapped, arguments = arguments[at + 1], arguments[:at] + arguments[at + 2 :]
        with open(f"{state}/wrapped", "w") as file:
            file.write(wrapped)
        arguments += [f"--output={state}/wrapped-%a", "--job-name=wrap", f"{state}/wrapped"]
    options = dict(re.fullmatch(r"--([a-z-]+)=?(.*)", a).groups() for a in arguments if a[0] == "-")
    with open(f"{state}/environment", "w") as file:
        json.dump(sorted(os.environ), file)
    script, *rest = [argument for argument in arguments if argument[0] != "-"]
    last = int(options["array"].rpartition("-")[2])
    refused = read(state, "refuse")
    if refused:
        sys.exit(f"sbatch: error: {refused}")
    if last >= int(read(state, "max_array") or 10**9):
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    jobs = jobs_in(state)
    if sum(len(live_tasks(job)) for job in jobs) + last + 1 > int(read(state, "max_jobs") or 10**9):
        sys.exit(_POLICY)
    job = {"id": len(jobs) + 1, "name": options["job-name"], "cancelled": False, "tasks": {}}
    for index in range(last + 1):
        if read(state, "hold") is not None:
            job["tasks"][index] = (None, None)
            continue
        place = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": str(job["id"])}
        with open(options["output"].replace("%a", str(index)), "a") as log:
            process = subprocess.Popen(
                ["/bin/sh", script, *rest],
                env={**os.environ, **place},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        job["tasks"][index] = (process.pid, _born(process.pid))
    _write(state, job)
    told = f"{job['id']};here" if "parsable" in options else f"Submitted batch job {job['id']}"
    print(told)


def squeue(state, arguments):
    if read(state, "squeue_down") is not None:
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    form = next(a for a in arguments if a.startswith("--format="))[len("--format=") :]
    for job in jobs_in(state):
        for index, (pid, _) in live_tasks(job).items():
            told = {"F": job["id"], "K": index, "j": job["name"], "i": f"{job['id']}_{index}"}
            told |= {"T": "RUNNING", "r": "None"}
            if pid is None:
                told |= {"T": "PENDING", "r": read(state, "hold") or "Priority"}
            print(re.sub(r"%(\w)", lambda match, told=told: str(told[match[1]]), form))


def scancel(state, arguments):
    if read(state, "scancel_down") is not None:
        sys.exit("scancel: error: Unable to contact slurm controller (connect failure)")
    for job in jobs_in(state):
        if str(job["id"]) in arguments:
            for pid, _ in live_tasks(job).values():
                if pid is not None:
                    os.killpg(pid, signal.SIGTERM)
            _write(state, {**job, "cancelled": True})


def main(state, name, arguments):
    with open(f"{state}/lock", "a") as lock:
        os.set_inheritable(lock.fileno(), False)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if name != "squeue":
            with open(f"{state}/calls", "a") as log:
                log.write(json.dumps([name, *arguments]) + "\n")
        globals()[name](state, arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
