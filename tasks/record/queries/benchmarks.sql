-- What the models of a run or of a sweep score in each benchmark: a line a task and metric, the dense model beside the
-- other; groups stand before their tasks.
SELECT
    run, any_value(method) AS method, any_value(pattern) AS pattern, task, within, metric, higher_is_better,
    min(examples) AS examples, any_value(few_shot) AS few_shot, any_value(chance) AS chance,
    any_value(limited_to) AS limited_to, bool_or(chat) AS chat, max(shortened) AS shortened, sum(DISTINCT seconds) AS seconds,
    any_value("value") FILTER (subject = 'dense') AS dense, any_value(stderr) FILTER (subject = 'dense') AS dense_stderr,
    any_value(subject) FILTER (subject <> 'dense') AS subject,
    any_value("value") FILTER (subject <> 'dense') AS "value", any_value(stderr) FILTER (subject <> 'dense') AS stderr
FROM benchmarks SEMI JOIN (FROM runs WHERE run = $run OR sweep = $run) USING (run)
GROUP BY run, task, within, metric, higher_is_better
ORDER BY run, coalesce(within, task), within IS NOT NULL, task, metric
