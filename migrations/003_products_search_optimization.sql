-- Description: full-text search over products
--
-- CREATE INDEX CONCURRENTLY cannot run inside a transaction, so it has a file of its own: when it
-- fails, there is nothing else to undo.

-- UP
CREATE INDEX CONCURRENTLY idx_products_search
    ON products USING gin (to_tsvector('simple', name || ' ' || description));

-- DOWN
DROP INDEX CONCURRENTLY IF EXISTS idx_products_search;
