#!/usr/bin/env bash
# containerd and ctr with Quark as the binary of the shim for runc: one line per case, runc's result beside ours.
# Installs what it needs; the daemon runs in namespaces of its own and ends with the tests. --full: the long list too.
exec "$(dirname "$0")/test" --only engines/containerd "$@"
