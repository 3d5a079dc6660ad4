-- What belongs to the server and not to the database: made once for a cluster.
create role zoo_owner createdb; create role zoo_reader; create role "zoo writer ""x"""; create role zoo_member in role zoo_owner;
set allow_in_place_tablespaces = true;
create tablespace zoo_space location '';
create tablespace "zoo space 2" location '';
grant create on tablespace zoo_space, "zoo space 2" to zoo_owner;
