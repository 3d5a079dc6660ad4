-- @metadata {
--   "author": "ann",
--   "description": "users",
--   "breakingChange": false,
--   "estimatedDuration": 1000,
--   "dataVolume": "small",
--   "risk": "low",
--   "tags": ["feature"]
-- }

-- UP
CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email varchar(255));

-- DOWN
DROP TABLE users;
