# Sourced by the scripts that make files of Debian packages: unmodified packages of the suite
# $suite and its backports, unpacked but never installed. It needs a Debian 12 or 13 machine
# with its apt mirror, but neither root nor a free dpkg lock. The mirror's address and keyring
# are those of the machine's own apt configuration.
#
# $work is the folder of apt's state and of the packages downloaded ($work/debs).
# Exit status 3: this machine cannot have them; the last line says why.
suite=trixie
backports=trixie-backports

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
die() { echo "${0##*/}: $*"; exit 1; }
cannot() { echo "$*"; exit 3; }

# find_mirror prints "URI KEYRING" of the archive that serves this machine's release.
find_mirror() {
  local codename entry uri key
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  IFS='|' read -r uri entry < <(apt-get indextargets --no-release-info \
      --format '$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)' 'Created-By: Packages' |
    awk -F'|' -v r="$codename" '$1 == r && $2 == "main" && !n++ { print $3 "|" $4 }') || return 1
  key=$(sed -n 's/.*[Ss]igned-[Bb]y[:=] *\(\/[^] ]*\).*/\1/p' "${entry%:*}" | head -n1)
  echo "$uri ${key:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

# apt TOOL ARGUMENT... runs an apt tool on a world of its own: own package lists, and an
# empty dpkg status, so that every dependency is downloaded. Proxies and the like stay.
apt() {
  local tool=$1
  shift
  "$tool" -q=2 -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" \
    -o "Dir::Cache=$work/cache" -o "Dir::Cache::archives=$work/debs" \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Install-Recommends=false \
    -o APT::Get::Assume-Yes=true -o "APT::Sandbox::User=$(id -un)" -o Debug::NoLocking=true \
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=30 "$@"
}

# retry COMMAND... tries four times, with pauses: mirrors have bad moments.
retry() {
  local pause
  for pause in 2 8 20; do
    "$@" && return
    say "failed, once more in $pause s: $*"
    sleep "$pause"
  done
  "$@"
}

# fetch_lists makes the world of apt and fetches its package lists.
fetch_lists() {
  local uri key
  # shellcheck disable=SC1091
  read -r uri key < <(find_mirror) || cannot "apt's configuration names no Debian mirror"
  mkdir -p "$work"/{state/lists/partial,cache,debs/partial}
  : > "$work/status"
  printf "deb [signed-by=$key] $uri %s main\n" "$suite" "$backports" > "$work/sources.list"
  retry apt apt-get update --error-on=any
  say "package lists fetched"
}

# unpack TREE [OPTION]... unpacks what was downloaded, without documentation; OPTIONs are
# tar's. It writes "package version" lines into the file $versions.
unpack() {
  local d
  export tree=$1
  shift
  export tar_options="$*"
  for d in bin sbin lib lib64; do # Debian's merged /usr
    mkdir -p "$tree/usr/$d"
    ln -s "usr/$d" "$tree/$d"
  done
  find "$work/debs" -name '*.deb' -print0 | sort -z | xargs -0 -n1 -P"$(nproc)" sh -c '
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
      --exclude="./usr/share/doc" --exclude="./usr/share/man" --exclude="./usr/share/locale" \
      --exclude="./usr/share/info" --exclude="./usr/share/lintian" --exclude="./usr/share/bug" \
      $tar_options' sh
  find "$work/debs" -name '*.deb' -exec dpkg-deb -W --showformat '${Package} ${Version}\n' {} \; |
    sort > "$versions"
  say "unpacked, $(du -sm "$tree" | cut -f1) MB"
}
