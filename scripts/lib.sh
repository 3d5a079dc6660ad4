# shellcheck shell=bash
# What the scripts have in common; sourced, never run. The caller has set -euo pipefail.

say() { printf '== %s\n' "$*"; }
stop() {
    printf 'scripts/%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Cargo is often installed for one user and not in a script's PATH.
find_cargo() {
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    command -v cargo >/dev/null || stop "cargo is needed: https://rustup.rs"
}

# The folder of the newest PostgreSQL server programs of the system; nothing when there are none.
system_postgresql() {
    local folder
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        if [[ -x $folder/initdb && -x $folder/postgres && -x $folder/pg_dump ]]; then
            printf '%s\n' "$folder"
            return
        fi
    done
}

major_of() { "$1/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'; }

# initdb and postgres refuse root: the user to run them as, nothing when the caller is an ordinary one.
server_user() {
    if [[ $(id -u) -ne 0 ]]; then
        return
    fi
    if id -u postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" >/dev/null
}

# Debian's package makes a cluster and starts it: told not to, for as long as the installation lasts.
apt_install_postgresql() {
    local conf=/etc/postgresql-common/createcluster.conf
    apt_install postgresql-common
    local kept
    kept=$(mktemp)
    cp -p "$conf" "$kept"
    # shellcheck disable=SC2064 # the names are meant as they are now
    trap "cp -p '$kept' '$conf'; rm -f '$kept'" EXIT
    echo 'create_main_cluster = false' >>"$conf"
    apt_install "$@"
    cp -p "$kept" "$conf"
    rm -f "$kept"
    trap - EXIT
}

# Installs Debian's packages of these names where that may be done; elsewhere it says what to install. It sets
# and takes back a trap on EXIT, so it comes before the caller's own.
install_packages() {
    if [[ $# -eq 0 ]]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        stop "these are needed (names of Debian's packages): $*"
    fi
    if [[ $(id -u) -ne 0 ]]; then
        stop "these packages are needed: sudo apt-get install $*"
    fi
    say "installing $*"
    apt-get update -qq
    local others=() postgresql=() name
    for name in "$@"; do
        case $name in
        postgresql*) postgresql+=("$name") ;;
        *) others+=("$name") ;;
        esac
    done
    if [[ ${#postgresql[@]} -gt 0 ]]; then
        apt_install_postgresql "${postgresql[@]}"
    fi
    if [[ ${#others[@]} -gt 0 ]]; then
        apt_install "${others[@]}"
    fi
}
