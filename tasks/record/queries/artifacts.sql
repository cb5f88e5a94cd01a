-- What a run or a sweep stored.
SELECT run, method, pattern, kind, hash, folder, size_bytes
FROM artifacts SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY method, pattern, run, kind, hash
