-- @metadata {
--   "author": "ann",
--   "description": "status of users",
--   "breakingChange": false,
--   "estimatedDuration": 1000,
--   "dataVolume": "small",
--   "risk": "high",
--   "affectedTables": ["users"],
--   "tags": ["feature"]
-- }

-- UP
ALTER TABLE users ADD COLUMN status VARCHAR(50) DEFAULT 'active';

-- DOWN
ALTER TABLE users DROP COLUMN status;
