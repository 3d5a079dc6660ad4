# The commands of every day; `just` lists them.

default:
    @just --list

# Everything that must pass before a commit: format, lints, documentation, licences, tests
test *arguments:
    ./scripts/test {{ arguments }}

# The product at work on a PostgreSQL of its own, checked
demo:
    ./scripts/demo

# One test of those that need a server, by a part of its name
it name:
    cargo test --test it -- {{ name }}

# Format and lint alone
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# The library's documentation, opened in a browser
doc:
    cargo doc --no-deps --open

# Licences, advisories and sources of all dependencies (needs cargo-deny)
deny:
    cargo deny check
