-- The share of the prompts of a run that each action takes beyond each floor.
SELECT action, floor, avg((rise > floor)::INT) AS broken
FROM episodes, (SELECT DISTINCT floor FROM controllers WHERE run = $run)
WHERE run = $run
GROUP BY action, floor
