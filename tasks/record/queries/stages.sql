-- The stages of a run or of a sweep, in the order in which the runs ended and each run recorded its stages.
SELECT run, method, pattern, stage, stages.seconds, cached
FROM (SELECT *, row_number() OVER () AS place FROM stages) AS stages
JOIN (SELECT run, recorded_at AS ended_at FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY ended_at, run, place
