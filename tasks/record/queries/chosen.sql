-- What the shown policy of each floor of a run chose for each test prompt, beside "none": the times and losses of both.
-- Shown is the policy that answered live, or else the learner of the least regret, its first seed.
WITH learned AS (
    SELECT floor, policy, regret FROM controllers
    WHERE run = $run AND NOT live AND NOT contains(policy, ' ') AND policy IN (SELECT learner FROM learning WHERE run = $run)
), shown AS (
    SELECT floor, policy, learner_seed
    FROM (FROM decisions WHERE run = $run) AS decisions JOIN learned USING (floor, policy)
    QUALIFY row_number() OVER (PARTITION BY floor ORDER BY live DESC, learned.regret, policy, learner_seed) = 1
), measured AS (
    SELECT prompt, action, nll, rise, prefill_ms, switch_ms, decode_ms, tokens_per_s, cache_bytes, memory_bytes
    FROM episodes WHERE run = $run
), asked AS (
    SELECT prompt, source, tokens, ppl, row_number() OVER () AS place FROM prompts WHERE run = $run
)
SELECT
    floor, policy, learner_seed, place, source, tokens, ppl, chosen.*, rewards.reward,
    dense.nll AS dense_nll, dense.prefill_ms AS dense_prefill_ms, dense.decode_ms AS dense_decode_ms,
    dense.tokens_per_s AS dense_tokens_per_s, dense.cache_bytes AS dense_cache_bytes, dense.memory_bytes AS dense_memory_bytes
FROM shown
JOIN (SELECT floor, policy, learner_seed, prompt, action, reward FROM decisions WHERE run = $run AND NOT live) AS rewards
    USING (floor, policy, learner_seed)
JOIN asked USING (prompt)
JOIN measured AS chosen ON chosen.prompt = rewards.prompt AND chosen.action = rewards.action
JOIN measured AS dense ON dense.prompt = rewards.prompt AND dense.action = 'none'
ORDER BY floor, place
