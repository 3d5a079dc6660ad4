CREATE TABLE instagram_test (id int);
