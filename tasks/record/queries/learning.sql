-- How the learners of a run learned.
FROM learning WHERE run = $run ORDER BY floor, learner, learner_seed, step
