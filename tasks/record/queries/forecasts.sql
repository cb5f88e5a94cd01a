-- The forecasts for the cut models of a run or of a sweep, beside the speeds that were measured then.
FROM forecasts SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, phase DESC
