-- The texts that a run, or one of a sweep, was both calibrated and evaluated on.
SELECT DISTINCT evaluation.source
FROM (FROM datasets WHERE role = 'calibration') AS calibration
JOIN (FROM datasets WHERE role = 'evaluation') AS evaluation USING (run, dataset_hash)
SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY evaluation.source
