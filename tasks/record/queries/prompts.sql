-- The prompts of a run, those to train on first.
SELECT prompt, source, split, tokens, reference_tokens, ppl FROM prompts WHERE run = $run ORDER BY split DESC, prompt
