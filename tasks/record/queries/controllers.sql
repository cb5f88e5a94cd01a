-- The policies of a run by floor, what was looked up in the episodes before what was answered live.
FROM controllers WHERE run = $run ORDER BY floor, live
