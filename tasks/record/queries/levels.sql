-- What each part costs alone, in the runs of a sweep or in a run that measured it.
FROM levels SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, block, kind, rungs
