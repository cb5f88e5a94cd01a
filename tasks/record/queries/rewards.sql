-- What each policy of a run was rewarded above dense, for each test prompt, as a mean over its seeds.
WITH asked AS (
    SELECT prompt, row_number() OVER () AS place FROM prompts WHERE run = $run
), looked_up AS (
    SELECT floor, policy, prompt, avg(reward) AS reward FROM decisions WHERE run = $run AND NOT live GROUP BY ALL
)
SELECT floor, policy, place, looked_up.reward - dense.reward AS reward
FROM looked_up
JOIN (SELECT floor, prompt, reward FROM looked_up WHERE policy = 'dense') AS dense USING (floor, prompt)
JOIN asked USING (prompt)
WHERE policy <> 'dense' AND NOT contains(policy, ',')  -- nor an ablation's
ORDER BY floor, policy, place
