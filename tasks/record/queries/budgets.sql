-- The share of the parameters of the blocks that each cut of a run or of a sweep was to remove, and that it did.
WITH cut AS (
    SELECT run, sum(parameters_before - parameters) AS gone, sum(parameters_before) AS whole FROM slices GROUP BY run
), removed AS (
    SELECT run, sum(parameters) AS gone FROM removals GROUP BY run
)
SELECT run, method, pattern, (parameters->>'budget')::DOUBLE AS asked,
    (coalesce(cut.gone, 0) + coalesce(removed.gone, 0)) / (coalesce(cut.whole, 0) + coalesce(removed.gone, 0)) AS gone
FROM runs JOIN cut USING (run) LEFT JOIN removed USING (run)
WHERE (run = $run OR sweep = $run) AND flow = 'slice' AND parameters->>'cost' = 'parameters'
ORDER BY recorded_at, run
