#!/usr/bin/env python3
"""How long an application cannot write when a run has made it unwell: a part of scripts/bench, which calls it.

    recovery.py RIPCORD PSQL PROJECT DATABASE TABLE DOWN|RESTORE

Runs one migration under a fence and a writer that reconnects, with a health check that is red from then on until the
migration is gone, and prints Markdown: the seconds from the first red answer until the writer writes again, by phase.
PGHOST and the rest say where the server is.
"""
import json, os, pathlib, subprocess, sys, threading, time

ripcord, psql, project, database, table, way = sys.argv[1:]
project = pathlib.Path(project)
red, stop, written = project / "red", threading.Event(), []
red.unlink(missing_ok=True)


def sql(statement, quiet=False):
    return subprocess.run([psql, "-X", "-q", "-At", "-d", database, "-c", statement], check=not quiet,
                          capture_output=True, text=True).returncode == 0


def writer():
    """An application that reconnects and tries again for as long as it takes."""
    while not stop.is_set():
        if sql("INSERT INTO written DEFAULT VALUES", quiet=True):
            written.append(time.time())
        time.sleep(0.02)


sql("CREATE TABLE IF NOT EXISTS written (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now())")
number = len(list((project / "migrations").glob("*.sql"))) + 1
column = f"made_unwell_{number}"
up = f"ALTER TABLE {table} ADD COLUMN {column} integer;"
down = f"ALTER TABLE {table} DROP COLUMN {column};"
if way == "RESTORE":
    # Nothing but a restore brings this back.
    up += "\nUPDATE written SET at = NULL;"
migration = project / "migrations" / f"{number:03}_unwell.sql"
migration.write_text(f"-- UP\n{up}\n" + (f"\n-- DOWN\n{down}\n" if way == "DOWN" else ""))
probe = project / "probe"
# A command has an environment of its own.
here = "\n".join(f"export {name}='{os.environ[name]}'" for name in ("PGHOST", "PGPORT", "PGUSER") if name in os.environ)
probe.write_text(f"""#!/bin/sh
{here}
there=$({psql} -X -At -d {database} -c "SELECT count(*) FROM pg_attribute WHERE attname = '{column}' AND NOT attisdropped")
[ "$there" = 0 ] && exit 0
[ -e {red} ] || date +%s.%N > {red}
exit 1
""")
probe.chmod(0o755)
config = project / "ripcord.toml"
before = config.read_text()
config.write_text(before + f'\n[[health]]\ncommand = "{probe}"\nsuccesses = 1\ninterval = "200ms"\ndeadline = "2s"\n')
thread = threading.Thread(target=writer)
thread.start()
time.sleep(1)
events, result = [], {}
run = subprocess.Popen([ripcord, "--database-url", f"postgresql:///{database}", "--json", "--yes", "apply", "--writes",
                        "fence"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
stderr = []
reading = threading.Thread(target=lambda: stderr.append(run.stderr.read()))
reading.start()
for line in run.stdout:
    event = json.loads(line)
    events.append((time.time(), event))
    result = event if event["event"] == "result" else result
code = run.wait()
reading.join()
ended = time.time()
deadline = time.time() + 30
while not any(at > ended for at in written) and time.time() < deadline:
    time.sleep(0.05)
stop.set()
thread.join()
config.write_text(before)
migration.unlink()
wanted = {"DOWN": "rolled_back", "RESTORE": "restored"}[way]
if code != 3 or result.get("outcome") != wanted:
    sys.exit(f"the run ended with {code}, {result.get('outcome')}, and not {wanted}: {result.get('error')}\n{stderr[0]}")

first_red = float(red.read_text())


def when(event, step):
    """The last such event after the first red answer."""
    found = [at for at, told in events if at > first_red and told["event"] == event and told.get("step") == step]
    return found[-1] if found else None


gone = [at for at, told in events if at > first_red and told["event"] == "note" and "fence is gone" in told["message"]]
marks = []
if way == "DOWN":
    marks += [("health stays red until its deadline (2 s here), deciding, DOWN", when("migration_finished", None)), ("proving it", when("step_finished", "prove"))]
else:
    # pg_restore tells no progress of its own: what comes after the last rows are indexes and constraints.
    marks += [("health stays red until its deadline (2 s here), deciding, authenticating the backup", when("step_began", "load")),
              ("loading schema and rows", when("bytes", "load")), ("indexes and constraints", when("step_finished", "load")),
              ("proving it, while its statistics are made", when("step_finished", "prove")),
              ("the swap", when("step_finished", "swap"))]
# No write passes the fence, and a restored database has none.
first_write = min(at for at in written if at > first_red)
if way == "DOWN":
    marks.append(("the fence's end", gone[0] if gone else ended))
marks.append(("the application's next write", first_write))
print(f"| back by {'DOWN' if way == 'DOWN' else 'a restore'}: {result['database'].split('`')[0].strip()} | seconds |\n|---|---|")
last = first_red
for name, at in marks:
    if at is not None:
        print(f"| {name} | {max(at - last, 0):.2f} |")
        last = max(at, last)
gap = max((b - a for a, b in zip(written, written[1:])), default=0)
print(f"| **from the first red answer until the application writes** | **{last - first_red:.2f}** |")
print(f"| the longest pause between two writes (the whole run under the fence, its backup too) | {gap:.2f} |\n")
