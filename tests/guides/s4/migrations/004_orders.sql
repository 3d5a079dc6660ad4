-- @metadata {
--   "author": "ann",
--   "description": "orders",
--   "breakingChange": false,
--   "estimatedDuration": 1000,
--   "dataVolume": "small",
--   "risk": "low",
--   "tags": ["feature"]
-- }

-- UP
CREATE TABLE orders (id bigint PRIMARY KEY, user_id uuid CONSTRAINT fk_orders_user_id REFERENCES users(id));
CREATE INDEX idx_orders_user_id ON orders(user_id);

-- DOWN
DROP TABLE orders;
