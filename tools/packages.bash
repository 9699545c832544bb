# For ./check and ./demo: the packages that they need.

# install_packages WHO PACKAGE...: says what is missing, then installs it. As an ordinary user it only says
# what root would have to do. A host without dpkg is taken as it is: the build says what it misses.
install_packages() {
	local who=$1 missing=()
	shift
	if ! command -v dpkg-query >/dev/null; then
		echo "$who: this is no Debian: nothing is installed; README.md names the packages"
		return 0
	fi
	for package; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
	done
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		echo "$who: these packages are missing; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
		return 1
	fi
	echo "$who: installs with apt-get: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update </dev/null &&
		apt-get -qq install --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
		{ echo "$who: apt-get failed" >&2; return 1; }
}
