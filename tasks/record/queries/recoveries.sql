-- What the cut models of a run or of a sweep were trained on.
FROM recoveries SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, source
