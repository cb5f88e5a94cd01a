-- What speaks for the version of the bytes $checkpoint, registered for the text $dataset_hash in windows of $window: the
-- latest run that scored them there beside the dense model, and the latest that timed them, phase by phase.
WITH of_bytes AS (
    SELECT run, recorded_at, source, subject, ppl, size_bytes FROM evaluations
    WHERE checkpoint = $checkpoint AND subject <> 'dense' AND dataset_hash = $dataset_hash AND "window" = $window
), scored AS (
    SELECT of_bytes.*, dense.ppl AS dense_ppl, dense.size_bytes AS dense_bytes
    FROM of_bytes JOIN (
        FROM evaluations WHERE subject = 'dense' AND dataset_hash = $dataset_hash AND "window" = $window
    ) AS dense USING (run, source)
    ORDER BY of_bytes.recorded_at DESC, run LIMIT 1
), timed AS (
    SELECT run, subject, phase, batch, tokens, ratio, ratio_low, ratio_high, device
    FROM speeds JOIN (SELECT DISTINCT run, subject FROM of_bytes) USING (run, subject)
    QUALIFY row_number() OVER (PARTITION BY phase ORDER BY recorded_at DESC, run, batch, tokens) = 1
)
SELECT
    'evaluations' AS "table", run, subject, source, NULL AS phase, NULL AS device, ppl, dense_ppl, size_bytes,
    dense_bytes, NULL AS ratio, NULL AS ratio_low, NULL AS ratio_high
FROM scored
UNION ALL
SELECT
    'speeds', run, subject, NULL, phase, device, NULL, NULL, NULL, NULL, ratio, ratio_low, ratio_high
FROM timed
ORDER BY "table", phase DESC
