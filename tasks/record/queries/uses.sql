-- How often the policies of a run took each action, as a share of their decisions; live and looked up apart.
SELECT floor, policy, live, action, sum(share) / sum(sum(share)) OVER (PARTITION BY floor, policy, live) AS share
FROM decisions WHERE run = $run
GROUP BY floor, policy, live, action
ORDER BY floor, live, policy, share DESC, action
