# SPDX-License-Identifier: BSD-3-Clause
# Sourced by ./check and ./demo, at the top of the tree.

# install_packages all|run [no]: makes sure that the Debian packages of
# packages.txt (all, or those to build and run) are there; with "no" only says
# what is missing. Touches the network only when something is missing.
install_packages() {
  local which=$1 may_install=${2:-yes} missing=() package
  while IFS= read -r package; do
    case $package in
      '# Besides'*) if [[ $which == run ]]; then break; fi ;;
      '' | '#'*) ;;
      *) dpkg-query -W -f='${Status}' "$package" 2>/dev/null |
           grep -q '^install ok installed$' || missing+=("$package") ;;
    esac
  done <packages.txt
  if ((${#missing[@]} == 0)); then return 0; fi
  echo "Missing Debian packages: ${missing[*]}"
  if [[ $may_install == no ]]; then return 1; fi
  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "Install them as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends "${missing[@]}")
  # Package lists may be absent, or name files that are gone by now.
  "${install[@]}" </dev/null ||
    { "${as_root[@]}" apt-get update -q </dev/null && "${install[@]}" </dev/null; }
}
