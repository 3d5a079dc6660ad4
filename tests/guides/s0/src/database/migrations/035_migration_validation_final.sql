COMMENT ON TABLE merchants IS 'validated';
