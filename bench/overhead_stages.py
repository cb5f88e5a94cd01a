"""`python -m bench.overhead_stages N`: a flow of N stages that do nothing, run twice; prints the seconds of one."""

import json
import sys
import time

from flows.environment import use_project_settings
from flows.server import prefect_server


def main(count: int) -> None:
    use_project_settings()
    started = time.perf_counter()
    with prefect_server():
        server_s = time.perf_counter() - started
        from prefect import flow

        from tasks.stage import Stages, stage

        @stage()
        def nothing(number: int) -> int:
            return number

        @flow(name="nothing")
        def run() -> set[bool]:
            stages = Stages()
            for number in range(count):
                stages(nothing, number=number)
            return {row.cached for row in stages.rows}

        def seconds_each(found: bool) -> float:
            started = time.perf_counter()
            assert run() == {found}
            return (time.perf_counter() - started) / count

        computed_s, found_s = seconds_each(found=False), seconds_each(found=True)
    print(json.dumps({"server_s": server_s, "computed_s": computed_s, "found_s": found_s}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
