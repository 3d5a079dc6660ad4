SELECT this is not even SQL;
