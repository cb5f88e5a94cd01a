-- The texts that a run, or one of a sweep, was evaluated on and calibrated or trained on (its role) as well.
SELECT DISTINCT seen.role, evaluation.source
FROM (FROM datasets WHERE role <> 'evaluation') AS seen
JOIN (FROM datasets WHERE role = 'evaluation') AS evaluation USING (run, dataset_hash)
SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY evaluation.source, seen.role
