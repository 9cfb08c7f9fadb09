#!/usr/bin/env bash
# Podman (through conmon) with Quark as its runtime: one line per case, runc's result beside ours.
# Installs what it needs; all runs in namespaces of its own. --full: the long list too.
exec "$(dirname "$0")/test" --only engines/podman "$@"
