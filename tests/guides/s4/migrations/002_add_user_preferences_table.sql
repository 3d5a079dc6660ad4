-- @metadata {
--   "author": "ann",
--   "description": "add user preferences table",
--   "breakingChange": false,
--   "estimatedDuration": 1000,
--   "dataVolume": "small",
--   "risk": "low",
--   "dependencies": ["001"],
--   "tags": ["feature"]
-- }

-- UP
CREATE TABLE user_preferences (
  id UUID DEFAULT gen_random_uuid() PRIMARY KEY,
  user_id UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  theme VARCHAR(50) DEFAULT 'light'
);

CREATE INDEX idx_user_preferences_user_id ON user_preferences(user_id);

-- DOWN
DROP INDEX IF EXISTS idx_user_preferences_user_id;
DROP TABLE IF EXISTS user_preferences;
