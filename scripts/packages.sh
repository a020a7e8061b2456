# Functions for scripts that install a program with the system's package manager, without starting it. The scripts source this file.
# `program` names the program for messages, `instead` tells the user what else to do:
#
#   program=rabbitmq-server
#   instead='install rabbitmq-server yourself'
#   install "apt-get rabbitmq-server" "brew rabbitmq"
#
# The sourcing script sets `program` and `instead`.
# shellcheck shell=bash disable=SC2154

# Prints an error with the advice in `instead`, and exits with 1: give_up MESSAGE
give_up() {
    echo "$(basename "$0"): $1; $instead" >&2
    exit 1
}

as_root=()
if ((EUID != 0)); then
    ! command -v sudo >/dev/null || as_root=(sudo)
fi
root() {
    ${as_root[@]+"${as_root[@]}"} "$@"
}

# Debian starts the services it installs unless a policy forbids it.
with_apt() {
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        # shellcheck disable=SC2064 # `policy` is local, so it must be expanded now
        trap "root rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | root tee "$policy" >/dev/null
        root chmod 755 "$policy"
    fi
    # Another installation may hold apt's lock.
    root apt-get -o DPkg::Lock::Timeout=300 update -q || echo "apt-get update failed: using the existing package lists"
    root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "$@"
}

# Installs with the first package manager that exists: install "MANAGER PACKAGE..." ...
install() {
    local words
    echo "$(basename "$0"): $program is missing: installing it" >&2
    for words in "$@"; do
        # shellcheck disable=SC2086 # a list of words
        set -- $words
        command -v "$1" >/dev/null || continue
        # Homebrew refuses to run as root; the others need it.
        [[ $1 == brew ]] || ((EUID == 0)) || ((${#as_root[@]} > 0)) ||
            give_up "$program is missing, and installing it needs root or sudo"
        case $1 in
            apt-get) with_apt "${@:2}" ;;
            dnf) root dnf install -y "${@:2}" ;;
            apk) root apk add "${@:2}" ;;
            pacman) root pacman -Sy --noconfirm --needed "${@:2}" ;;
            brew) brew install "${@:2}" ;;
        esac >&2 || give_up "$1 could not install ${*:2}"
        return
    done
    give_up "$program is missing, and no supported package manager was found"
}
