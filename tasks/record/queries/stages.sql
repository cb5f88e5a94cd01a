-- The stages of a run or of a sweep, in the order of the runs and in the order in which each run recorded them.
SELECT run, method, pattern, stage, stages.seconds, cached
FROM stages JOIN (SELECT run, recorded_at AS ended_at FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY ended_at, run
