"""One run on this machine, from its claim to its end: folder, child process, events, heartbeat, outcome."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from training.contract import EXIT_DONE, EXIT_STOPPED, LOG
from webapp import processes
from webapp.accounts.hub import hub_token
from webapp.errors import TutelageError
from webapp.home_folder import ROOT
from webapp.jobs import ClaimLost, Heartbeat
from webapp.runs.folders import drop_copies, events_file, file_size, folder_of, log_tail, prepare_folder
from webapp.runs.models import Run
from webapp.runs.services import RUNS, claim_run, fail_run, read_events, requeue_run, succeed
from webapp.runs.services.claims import cancel_run, mark_running
from webapp.runs.services.redaction import redact_inputs
from webapp.runs.uploads import drop_upload
from webapp.supervisor.launch import tied

log = logging.getLogger(__name__)

LOOK = 0.3  # seconds between looks at events.jsonl
GRACE = 300.0  # seconds that a stage has to write a checkpoint when asked to stop
ORPHAN_GRACE = 30.0

# What a training process may know of its surroundings. Credentials of the database, the broker and the store are not
# among it. HF_TOKEN is, for bases that the hub gives to its owner only; so are proxies, which reach the hub, and
# tokens of servers that score replies.
PASSED_ON = {
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "TEMP", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV",
    "CC", "CXX", "CXXFLAGS", "XDG_CACHE_HOME", "TUTELAGE_KERNELS", "TUTELAGE_REWARDS",
    "TUTELAGE_REWARD_HOSTS", "TUTELAGE_REWARD_TOKENS", "TUTELAGE_CODE_REWARDS", "TUTELAGE_CPU_PROCESSES",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
}  # fmt: skip
REWARD_HOSTS = "TUTELAGE_REWARD_HOSTS"
# Addresses and credentials of experiment trackers, for the runs that report to them only.
TRACKER_PREFIXES = {"wandb": "WANDB_", "mlflow": "MLFLOW_", "trackio": "TRACKIO_"}
PASSED_ON_PREFIXES = (
    "LC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "MALLOC_",
    "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "MIOPEN_", "GLOO_",
    "TORCH", "PYTORCH_", "TRITON_", "TRANSFORMERS_", "HF_", "ACCELERATE_",
)  # fmt: skip

shutting_down = threading.Event()  # set when the worker is asked to go: checkpoint, and back in the queue


def execute(run_id: int) -> bool:
    """Claim a queued run and see it through. False where there was nothing to claim."""
    run = claim_run(run_id=run_id)
    if run is None:
        return False
    try:
        with Heartbeat(RUNS, run) as heartbeat:
            see_through(run, heartbeat)
    except ClaimLost:
        log.warning("run %s was taken over by another worker", run.pk)
    except Exception as error:
        requeue_run(run, f"The worker met an error that nobody foresaw ({type(error).__name__}: {error}).")
        raise
    return True


def see_through(run: Run, heartbeat: Heartbeat[Run]) -> None:
    try:
        end_orphan(run)
        redact_inputs(run)
        folder = prepare_folder(run)
        status, since = run_stage(run, folder, heartbeat)
        conclude(run, folder, status, since, heartbeat)
    except TutelageError as error:
        fail_run(run, error.message, error.error_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or folder_of(run)
        message = f"The disk that holds {where} is full: free some space, then resume the run; nothing is lost."
        fail_run(run, message, "disk_full")


def end_orphan(run: Run) -> None:
    """Stop the process that a worker left behind when it was killed; it writes a checkpoint first."""
    if run.child:
        processes.end_process(run.child, ORPHAN_GRACE)


def run_stage(run: Run, folder: Path, heartbeat: Heartbeat[Run]) -> tuple[int, int]:
    """Run the stage as a child process and follow its events. Its exit status, and where in events.jsonl it began."""
    surroundings = environment() | hub_access(run) | tracker_access(run)
    events = events_file(folder)
    if file_size(events) < run.events_read:
        raise TutelageError(
            f"{events} is shorter than what was read of it: the run folder was changed. Retry the run to start anew.",
            code="folder_changed",
        )
    while read_events(run, events):
        """What an earlier start wrote and nobody read."""
    since = file_size(events)
    with (folder / LOG).open("ab") as output:
        child = subprocess.Popen(
            # Should this worker be killed, the run writes a checkpoint and ends too.
            tied([sys.executable, "-m", "training", run.stage, str(folder)], death=signal.SIGTERM),
            cwd=ROOT,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        mark_running(run, processes.identity(child.pid))
        follow(run, events, since, child, heartbeat)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode, since


def environment() -> dict[str, str]:
    passed = {key: value for key, value in os.environ.items() if key in PASSED_ON or key.startswith(PASSED_ON_PREFIXES)}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # A judge of the site is a reward at the site's own address, wherever that is.
    hosts = ",".join(filter(None, (passed.get(REWARD_HOSTS), site_host())))
    variables = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path, REWARD_HOSTS: hosts}
    return passed | variables


def site_host() -> str:
    """host:port of the site."""
    url = urlsplit(settings.SITE_URL)
    return f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}"


def hub_access(run: Run) -> dict[str, str]:
    """The hub token of whoever launched a run that adds a model or pushes one. Without one the worker's own HF_TOKEN
    stays, to add a model; nothing is pushed in the name of whoever runs the installation."""
    if run.config.get("push_to"):
        return {"HF_TOKEN": hub_token(run.created_by), "HF_HUB_DISABLE_XET": "1"}
    token = hub_token(run.created_by) if run.stage == "add" else ""
    return {"HF_TOKEN": token} if token else {}


def tracker_access(run: Run) -> dict[str, str]:
    """What the trackers that the run reports to find in this worker's environment, and what they call the run."""
    names = run.config.get("report_to") or []
    if not names:
        return {}
    prefixes = tuple(TRACKER_PREFIXES[name] for name in names if name in TRACKER_PREFIXES)
    passed = {key: value for key, value in os.environ.items() if key.startswith(prefixes)}
    return passed | {"TUTELAGE_PROJECT": run.project.slug, "TUTELAGE_RUN_NAME": run.name}


def follow(run: Run, events: Path, since: int, child: subprocess.Popen[bytes], heartbeat: Heartbeat[Run]) -> None:
    """Take in events until the process has ended and all are read. Raises ClaimLost."""
    asked_at = 0.0
    while True:
        ended = child.poll() is not None
        if heartbeat.lost.is_set():
            raise ClaimLost
        if not ended and not asked_at and (heartbeat.stop.is_set() or shutting_down.is_set()):
            child.terminate()
            asked_at = time.monotonic()
        if asked_at and time.monotonic() - asked_at > GRACE:
            child.kill()
        try:
            got_events = read_events(run, events, since)
        except (DatabaseError, InterfaceError) as error:
            log.warning("run %s: the database does not answer, training goes on: %s", run.pk, error)
            connection.close()
            time.sleep(1)
            continue
        if ended and not got_events:
            return
        if not got_events:
            time.sleep(LOOK)


def conclude(run: Run, folder: Path, status: int, since: int, heartbeat: Heartbeat[Run]) -> None:
    """The state that follows from how the process ended."""
    if status == EXIT_DONE:
        succeed(run, folder)
        drop_copies(run)
        drop_upload(run)
    elif status > 0 and status != EXIT_STOPPED:
        conclude_failure(run, status, since)
    elif heartbeat.stop_requested():
        cancel_run(run)
    elif status == EXIT_STOPPED:
        requeue_run(run, "The training process was told to stop.", counts=not shutting_down.is_set())
    else:
        name = signal.Signals(-status).name
        requeue_run(run, f"The training process was killed ({name}), which the system does when memory runs out.")


def conclude_failure(run: Run, status: int, since: int) -> None:
    failed = run.events.filter(type="failed", position__gte=since).order_by("-position").first()
    if failed:
        fail_run(run, str(failed.data["message"]), str(failed.data.get("code", "failed")))
        return
    last_line = next((line.strip() for line in reversed(log_tail(run).splitlines()) if line.strip()), "")
    if "another process is working on this run" in last_line:
        requeue_run(run, "Another process still works in the run's folder.", counts=False)
    else:
        ending = f": {last_line[:500]}" if last_line else " without a word"
        fail_run(run, f"The training process ended with status {status}{ending}", "ended")
