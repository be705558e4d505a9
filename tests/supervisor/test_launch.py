from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.supervisor.conftest import until
from webapp.supervisor.launch import tied

PARENT = """
import subprocess, sys
from webapp.supervisor.launch import tied
child = subprocess.Popen(tied([sys.executable, "-c", "import time; time.sleep(600)"]), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_tied_process_ends_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_process_whose_parent_died_before_the_tie_was_made_ends_itself() -> None:
    command = tied(["sleep", "600"])
    command[command.index(str(os.getpid()))] = "1"  # another than the one that really starts it
    assert subprocess.run(command, check=False, timeout=20).returncode == -signal.SIGKILL


def test_the_command_keeps_the_process_id_and_its_arguments() -> None:
    command = tied([sys.executable, "-c", "import os, sys; print(os.getpid(), sys.argv[1:])", "a b", "--c"])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=20)[0] == f"{process.pid} ['a b', '--c']\n"


def test_a_command_can_be_made_to_give_way() -> None:
    command = tied([sys.executable, "-c", "import os; print(os.nice(0))"], nice=3)
    assert int(subprocess.check_output(command)) == os.nice(0) + 3


def test_the_launcher_needs_no_package() -> None:
    source = Path("webapp/supervisor/launch.py").resolve().read_text()
    assert "import django" not in source
    assert "from webapp" not in source
