# shellcheck shell=sh
# For scripts to read: packages of another suite of Debian, unpacked into a folder. Nothing is installed, and the lists
# of this system's package manager stay as they are.

# unpack SUITE FOLDER PACKAGE...: puts what is in them under FOLDER/root, and makes FOLDER/bin.
unpack() {
  suite=$1 folder=$2
  shift 2
  command -v apt-get >/dev/null || { echo "no apt-get here: Debian $suite cannot be fetched" >&2; exit 1; }
  rm -rf "$folder"
  mkdir -p "$folder/sources" "$folder/state/lists/partial" "$folder/cache/archives/partial" "$folder/root" "$folder/bin"
  folder=$(cd "$folder" && pwd)

  # The mirror that this system uses for its own suite.
  if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    sed -n '1,/^$/p' /etc/apt/sources.list.d/debian.sources | sed "s/^Suites:.*/Suites: $suite/" >"$folder/sources/one.sources"
  else
    sed -n "s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) [^ ]* \(main.*\)/deb \1\2 $suite main/p" /etc/apt/sources.list | head -n 1 \
      >"$folder/sources/one.list"
  fi
  apt update
  (
    cd "$folder/cache/archives"
    apt download "$@"
    for package in *.deb; do dpkg -x "$package" "$folder/root"; done
  )
}

apt() {
  apt-get -qq \
    -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$folder/sources" \
    -o Dir::State="$folder/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$folder/cache" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o APT::Sandbox::User="$(id -un)" "$@"
}

# runner BINARY: prints the line of a script that runs it by the loader of its suite, with the C library of its suite.
runner() {
  loader=$(find "$folder/root" -name 'ld-linux*.so.*' -type f | head -n 1)
  libraries=$(dirname "$(find "$folder/root" -name libc.so.6 | head -n 1)")
  libraries=$libraries:$(dirname "$(ldconfig -p | sed -n 's/.* //; /libssl\.so/p' | head -n 1)")
  # shellcheck disable=SC2016
  printf '"%s" --argv0 "$0" --library-path "%s" "%s" "$@"\n' "$loader" "$libraries" "$1"
}
