# What the guest builders share: messages, the cache of Debian packages, one builder at a time,
# and output that appears whole or not at all. Sourced by bash, never run.

guests_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$guests_folder/../.." && pwd)
cache="${MACFLEET_CACHE_DIR:-$checkout/.macfleet/cache}"

# File dates in the images, so that the same packages give the same bytes.
export SOURCE_DATE_EPOCH=1700000000
export TZ=UTC LC_ALL=C
# Debian leaves the sbin folders out of a user's PATH; sfdisk, mkfs.vfat and depmod live there.
PATH="$PATH:/usr/sbin:/sbin"

say() { echo "$guest: $*" >&2; }

fail() {
  echo "$guest: $*" >&2
  exit 1
}

# Refuses early, with the way out, when a command that the build needs is not there.
need_commands() {
  local command missing=()
  for command in "$@"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  [ ${#missing[@]} -eq 0 ] || fail "missing: ${missing[*]} (script/bootstrap installs them)"
}

# --- Is there anything to do? ---------------------------------------------------------------------
#
# The stamp's first line says what the build looked at without asking apt (the scripts, and which
# package lists apt holds), its second line what it was made of. apt takes most of a second to
# answer, so it is asked only when the first line differs.

script_hash() { (cd "$guests_folder" && find . -type f | sort | xargs sha256sum) | sha256sum; }

quick_key() {
  { script_hash; stat -c '%n %Y %s' /var/lib/apt/lists/*Release 2>/dev/null || true; } |
    sha256sum | cut -d' ' -f1
}

# Both exit or return by the stamp: `already_built` before apt was asked, `same_inputs` after.
already_built() { outputs_present && [ "$(sed -n 1p "$stamp")" = "$(quick_key)" ]; }

same_inputs() { # INPUTS_HASH
  outputs_present && [ "$(sed -n 2p "$stamp")" = "$1" ] || return 1
  write_stamp "$1"
}

outputs_present() {
  local file
  for file in "${outputs[@]}" ".$guest.stamp"; do
    [ -s "$out/$file" ] || return 1
  done
}

write_stamp() { # INPUTS_HASH
  printf '%s\n%s\n' "$(quick_key)" "$1" >"$stamp.new"
  mv -f "$stamp.new" "$stamp"
}

# --- One builder at a time, nothing half-made -----------------------------------------------------

# Sets out, stamp and work. Whoever holds the lock is the only builder of this guest in this folder,
# so a work folder found then was left by a killed one.
open_output() { # OUT_DIR
  mkdir -p "$1" "$cache"
  out=$(cd "$1" && pwd)
  stamp="$out/.$guest.stamp"
  exec 9>"$out/.$guest.lock"
  if ! flock -n 9; then
    say "waiting for another build into $out"
    flock 9
  fi
  remove_work "$out/.$guest".work.*
}

open_work() {
  work=$(mktemp -d "$out/.$guest.work.XXXXXX")
  trap 'remove_work "$work"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# A tree unpacked from packages can hold folders without the write bit.
remove_work() {
  local folder
  for folder in "$@"; do
    [ -d "$folder" ] || continue
    chmod -R u+rwX "$folder" 2>/dev/null || true
    rm -rf "$folder"
  done
}

# Moves the finished files into place. The stamp goes first and comes back last: a build that is
# killed in between is done again.
publish() { # INPUTS_HASH
  local file
  rm -f "$stamp"
  for file in "${outputs[@]}"; do
    mv -f "$work/$file" "$out/$file"
  done
  write_stamp "$1"
}

# --- Debian packages, without installing them -----------------------------------------------------

# The newest kernel's own package: the cloud kernel's package of the stable name is empty.
kernel_package() {
  apt-cache depends --important linux-image-cloud-amd64 |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# One line a package: name, version, the file apt calls it by, its digest.
package_versions() { # PACKAGE...
  apt-cache show --no-all-versions "$@" | awk '
    /^Package:/ { name = $2 } /^Version:/ { version = $2 } /^Architecture:/ { arch = $2 }
    /^SHA256:/ {
      file = version; gsub(/:/, "%3a", file)
      print name, version, name "_" file "_" arch ".deb", $2
    }' | sort
}

# Fills the cache with the packages of package_versions, checked by digest.
fetch_packages() { # FILE_OF_VERSIONS
  local name version file digest wanted=()
  exec 8>"$cache/.lock"
  flock 8
  while read -r name version file digest; do
    echo "$digest  $cache/$file" | sha256sum --check --status 2>/dev/null && continue
    rm -f "$cache/$file"
    wanted+=("$name=$version")
  done <"$1"
  if [ ${#wanted[@]} -gt 0 ]; then
    say "downloading ${#wanted[@]} Debian packages"
    download "${wanted[@]}"
  fi
  exec 8>&-
}

# Into a folder beside the cache first: an interrupted download leaves nothing under a final name.
# apt warns that root's own folder can't be entered by its download user, and goes on: not a fault.
download() { # PACKAGE=VERSION...
  mkdir "$work/download"
  (cd "$work/download" && apt-get download -qq -o APT::Sandbox::User=root "$@" >&2) ||
    fail "apt-get could not download: $* (are its lists fresh? apt-get update)"
  mv -f "$work"/download/*.deb "$cache/"
  rmdir "$work/download"
}

# Unpacks cached packages into a folder.
unpack() { # FILE_OF_VERSIONS FOLDER PACKAGE...
  local versions=$1 folder=$2 package file
  shift 2
  for package in "$@"; do
    file=$(awk -v name="$package" '$1 == name { print $3 }' "$versions")
    dpkg -x "$cache/$file" "$folder"
  done
}

# --- Disks ----------------------------------------------------------------------------------------

# A FAT partition that starts at sector 2048, made in a file of its own so that nothing is mounted.
make_fat() { # FILE SIZE_MIB LABEL
  truncate -s "$2M" "$1"
  mkfs.vfat --invariant -h 2048 -n "$3" "$1" >/dev/null
}

set_dates() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }
