"""The clock of the run jumps: it is a year behind, or a year ahead, of that of the run before and after it."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.faults.subject import end, start
from bench.faults.tries import Try, judged

YEAR_S = 365 * 24 * 3600
SHIFTED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long seconds(void) { const char *said = getenv("CLOCK_SHIFT_S"); return said ? atol(said) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += seconds();
    return code;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def clock_behind(of: Try) -> dict[str, Any]:
    return _shifted(of, -YEAR_S)


def clock_ahead(of: Try) -> dict[str, Any]:
    return _shifted(of, YEAR_S)


def _shifted(of: Try, seconds: int) -> dict[str, Any]:
    """The command and its server by a shifted clock; `judged` gives it again by the true one, in the same artifacts."""
    with tempfile.TemporaryDirectory() as place:
        library = Path(place, "clock.so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"], input=SHIFTED.encode(), check=True
        )
        return judged(of, end(start(of.artifacts, LD_PRELOAD=str(library), CLOCK_SHIFT_S=str(seconds))))
