-- The whole schema, for a new database.
CREATE TABLE IF NOT EXISTS celebrities (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE IF NOT EXISTS bookings (id serial PRIMARY KEY, celebrity_id int REFERENCES celebrities(id));
