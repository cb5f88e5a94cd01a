-- The texts of a run or of a sweep: each once, however many runs read it.
SELECT DISTINCT role, source, documents, text_bytes, tokens, windows, "window", dataset_hash
FROM datasets SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
ORDER BY role, source, "window"
