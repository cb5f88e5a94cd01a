-- The benchmarks that the models of $a and $b were both asked, the same questions in the same way: in the run itself or
-- in any other of the same bytes, the latest of each.
WITH made AS (
    SELECT run, checkpoint FROM evaluations WHERE subject <> 'dense'
    UNION SELECT run, checkpoint FROM benchmarks WHERE subject <> 'dense'
), scores AS (
    SELECT made.run AS of_run, benchmarks.* EXCLUDE (run)
    FROM made JOIN benchmarks USING (checkpoint)
    WHERE made.run IN ($a, $b) AND within IS NULL
    QUALIFY row_number() OVER (
        PARTITION BY of_run, task, metric, dataset_hash, few_shot, limited_to, chat ORDER BY recorded_at DESC, benchmarks.run
    ) = 1
)
SELECT
    first.task, first.metric, first.examples, first.chance, first.higher_is_better,
    first.value AS a, first.stderr AS a_stderr, second.value AS b, second.stderr AS b_stderr
FROM (FROM scores WHERE of_run = $a) AS first JOIN (FROM scores WHERE of_run = $b) AS second
    ON (first.task, first.metric, first.dataset_hash, first.few_shot, first.chat)
        = (second.task, second.metric, second.dataset_hash, second.few_shot, second.chat)
    AND first.limited_to IS NOT DISTINCT FROM second.limited_to
ORDER BY first.task, first.metric
