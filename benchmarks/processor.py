"""What processes have used of the processors."""

import os
import resource
from pathlib import Path


def processor_seconds(process_id: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished_children_seconds() -> float:
    """User and system time of this process's children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
