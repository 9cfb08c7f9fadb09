# Functions for the scripts of this project; to be sourced by bash.

# The project's root directory.
repo_root() {
  (cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
}

# Where downloads and built root file systems are kept. Work trees of one clone share theirs.
cache_dir() {
  local top common
  if [ -n "${QUARK_CACHE:-}" ]; then
    echo "$QUARK_CACHE"
    return
  fi
  top=$(repo_root)
  common=$(git -C "$top" rev-parse --path-format=absolute --git-common-dir 2>/dev/null) || common=
  case $common in
    */.git) echo "${common%/.git}/.cache" ;;
    *) echo "$top/.cache" ;;
  esac
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# Runs a command as root: directly, or through sudo where there is one.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    echo "this needs root: $*" >&2
    return 1
  fi
}

# The Debian mirror this machine is configured with.
debian_mirror() {
  local uri
  uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
    sed -n 's/^bookworm \(.*\)$/\1/p' | head -1)
  echo "${uri:-http://deb.debian.org/debian}"
}

# Installs the named Debian packages that are missing; says what it does, and is silent when nothing is.
apt_need() {
  local p missing=()
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}"
  # A fresh machine may have no package lists at all, or lists older than the mirror.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    --no-install-recommends install "${missing[@]}" >/dev/null 2>&1 && return 0
  as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    --no-install-recommends install "${missing[@]}" >/dev/null
}

# The environment every cargo call of this project runs in.
rust_environment() {
  # A RUSTFLAGS from outside silently replaces the per-target flags of .cargo/config.toml.
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
  case ":$PATH:" in
    *":$HOME/.cargo/bin:"*) ;;
    *) [ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH ;;
  esac
  export PATH
}
