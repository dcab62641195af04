# What the guest builders share: messages, the cache of Debian packages, one builder at a time,
# and output that appears whole or not at all. Sourced by bash, never run.

guests_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$guests_folder/../.." && pwd)
cache="${MACFLEET_CACHE_DIR:-$checkout/.macfleet/cache}"

# File dates in the images, so that the same packages give the same bytes.
export SOURCE_DATE_EPOCH=1700000000
export TZ=UTC LC_ALL=C
umask 022
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

# The question before apt was asked, and the one after.
already_built() { outputs_present && [ "$(sed -n 1p "$stamp")" = "$(quick_key)" ]; }

same_inputs() {
  outputs_present && [ "$(sed -n 2p "$stamp")" = "$inputs" ] || return 1
  write_stamp
}

outputs_present() {
  local file
  for file in "${outputs[@]}" ".$guest.stamp"; do
    [ -s "$out/$file" ] || return 1
  done
}

write_stamp() {
  printf '%s\n%s\n' "$(quick_key)" "$inputs" >"$stamp.new"
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
publish() {
  local file
  say "putting ${outputs[*]} into $out"
  rm -f "$stamp"
  for file in "${outputs[@]}"; do
    mv -f "$work/$file" "$out/$file"
  done
  write_stamp
}

# --- Debian packages, without installing them -----------------------------------------------------

# What is installed here must not matter: without a status file only the archive is looked at.
# Root stays root, as apt's own download user could not enter our folders. fetch_lists adds to it.
apt_options=(-o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
lists_are_ours=no

# The newest cloud kernel's own package: the package of the stable name holds nothing but that name.
kernel_package() {
  apt-cache "${apt_options[@]}" depends --important linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1 || true
}

# Sets kernel, and inputs: a hash of the scripts and of the packages, whose names, versions, files
# and digests go to the file $versions, one package a line.
choose_packages() { # PACKAGE...
  chosen=("$@")
  kernel=$(kernel_package)
  if [ -z "$kernel" ]; then
    fetch_lists
    kernel=$(kernel_package)
    [ -n "$kernel" ] || fail "apt knows no linux-image-cloud-amd64: is this Debian?"
  fi
  versions="$work/versions"
  apt-cache "${apt_options[@]}" show --no-all-versions "$kernel" "$@" | awk '
    /^Package:/ { name = $2 } /^Version:/ { version = $2 } /^Architecture:/ { arch = $2 }
    /^SHA256:/ {
      file = version; gsub(/:/, "%3a", file)
      print name, version, name "_" file "_" arch ".deb", $2
    }' | sort >"$versions"
  inputs=$({ script_hash; cat "$versions"; } | sha256sum | cut -d' ' -f1)
}

# Package lists of our own, for a machine whose lists are gone or too old to download by; the
# machine's own can be renewed by root only.
fetch_lists() {
  say "fetching Debian's package lists"
  mkdir -p "$cache/lists/partial" "$cache/apt"
  apt_options+=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache=$cache/apt")
  lists_are_ours=yes
  apt-get "${apt_options[@]}" -qq update >&2 || fail "apt-get update does not work here"
}

# Brings some of the chosen packages into the cache, checked by digest. Lists that name a version
# which the mirror has dropped are the usual reason for a failure, so they are renewed once.
fetch_packages() { # PACKAGE...
  exec 8>"$cache/.lock"
  flock 8
  if ! fetch_missing "$@"; then
    [ $lists_are_ours = no ] || fail "apt-get could not download the packages"
    fetch_lists
    choose_packages "${chosen[@]}"
    fetch_missing "$@" || fail "apt-get could not download the packages"
  fi
  exec 8>&-
}

fetch_missing() { # PACKAGE...
  local name version file digest wanted=()
  while read -r name version file digest; do
    [[ " $* " == *" $name "* ]] || continue
    echo "$digest  $cache/$file" | sha256sum --check --status 2>/dev/null && continue
    rm -f "$cache/$file"
    wanted+=("$name=$version")
  done <"$versions"
  [ ${#wanted[@]} -eq 0 ] || download "${wanted[@]}"
}

# Into a folder beside the cache first: an interrupted download leaves nothing under a final name.
download() { # PACKAGE=VERSION...
  say "downloading Debian packages: $#"
  rm -rf "$work/download"
  mkdir "$work/download"
  (cd "$work/download" &&
    apt-get "${apt_options[@]}" download -qq "$@" >&2) || return 1
  mv -f "$work"/download/*.deb "$cache/"
}

# Unpacks cached packages into a folder.
unpack() { # FOLDER PACKAGE...
  local folder=$1 package file
  shift
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

# What the two boot loaders read: syslinux under SeaBIOS, systemd-boot under OVMF.
loader_files() { # TREE NAME KERNEL_OPTIONS
  printf 'timeout 0\n' >"$1/loader/loader.conf"
  printf 'title %s\nlinux /vmlinuz\ninitrd /initrd\noptions %s\n' "$2" "$3" \
    >"$1/loader/entries/$2.conf"
  printf 'DEFAULT %s\nLABEL %s\n LINUX /vmlinuz\n INITRD /initrd\n APPEND %s\n' "$2" "$2" "$3" \
    >"$1/syslinux.cfg"
}

# The first 440 bytes of a disk; the partition table begins behind them.
write_boot_code() { # DISK FILE
  dd if="$2" of="$1" bs=440 count=1 conv=notrunc status=none
}

write_partition() { # DISK FILE AT_MIB
  dd if="$2" of="$1" bs=1M seek="$3" conv=notrunc,sparse status=none
}

set_dates() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }
