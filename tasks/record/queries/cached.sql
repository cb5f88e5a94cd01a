-- How many stages a run or a sweep had, in how many runs, and how many of them came from the cache.
SELECT count(DISTINCT run) AS runs, count(*) AS stages, count(*) FILTER (WHERE cached) AS cached
FROM stages SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
